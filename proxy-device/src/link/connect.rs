//! One connection to an edge: a socket, TLS over it where the edge's URL is https, and HTTP/2 in that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use sidecod_sidecar::body::empty;
use sidecod_sidecar::gather::Gather;
use sidecod_sidecar::own::Own;
use sidecod_sidecar::tls::{self, TlsError};
use sidecod_sidecar::upstream::BaseUrl;
use sidecod_sidecar::{Body, BoxError};
use sidecod_wire::header::{ASK, ASK_PROBE, TOKEN};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::SetUpError;
use super::counted::Counted;
use super::pace::{Pace, Pieces, Watch};
use crate::config;
use crate::relay::edge_error;

/// The connection is tried with a ping after this much silence, also while it is idle.
const PING_AFTER: Duration = Duration::from_secs(5);
/// It counts as broken when the ping is not answered in this time.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that the system may hold unsent: a ping waits behind them on a thin link.
const UNSENT: u32 = 16 << 10;
/// Bytes of a body that are cut into pieces before they can be sent.
const AHEAD: usize = 256 << 10;
/// Bytes of the headers of an answer.
const MAX_HEADERS: u32 = 512 << 10;
/// What the edge may send before it is read.
const WINDOW: u32 = 2 << 20;

/// How edges are connected to.
#[derive(Clone)]
pub(super) struct Connect {
    /// What the connections are noted in.
    pub own: Own,
    /// How long one may take.
    pub limit: Duration,
    /// What admits this device.
    pub token: Option<HeaderValue>,
    /// How it is encrypted; not at all where there is none.
    tls: Option<Arc<tls::Client>>,
}

/// A connection, and the task that ends with it.
pub(super) type Connected = (Sender, JoinHandle<()>);

/// Sends requests over a connection.
#[derive(Clone)]
pub(super) struct Sender {
    requests: SendRequest<Pieces>,
    pace: Arc<Pace>,
}

/// A request that got no answer: itself, where nothing of it was sent, and why.
pub(super) type Unanswered = (Option<Request<Body>>, hyper::Error);

impl Sender {
    /// Sends a request.
    pub fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, Unanswered>> + use<> {
        let request = request.map(|body| Pieces::new(body, self.pace.clone()));
        let answer = self.requests.try_send_request(request);
        async {
            answer.await.map_err(|mut error| {
                let request = error.take_message();
                let request = request.map(|request| request.map(Pieces::into_inner));
                (request, error.into_error())
            })
        }
    }
}

/// The kind of the error of an edge that is starting or ending.
pub(super) const NOT_READY: &str = "not-ready";

impl Connect {
    /// What the configuration says of edges.
    ///
    /// # Errors
    /// [`SetUpError`].
    pub fn new(edge: &config::Edge, own: Own) -> Result<Self, SetUpError> {
        let token = edge
            .token
            .as_ref()
            .map(|token| HeaderValue::from_str(token.secret()))
            .transpose()
            .map_err(|_| SetUpError::Token)?;
        let token = token.map(|mut token| {
            token.set_sensitive(true);
            token
        });
        Ok(Self {
            own,
            limit: Duration::from_millis(edge.connect_timeout_ms),
            token,
            tls: edge.tls.as_ref().map(client).transpose()?.map(Arc::new),
        })
    }

    /// Connects to an edge, at most for the limit. With `probing` an answer of the edge is waited
    /// for: a frozen process has its connections accepted by the system. The error is for people.
    pub async fn to(
        &self,
        url: &BaseUrl,
        address: SocketAddr,
        probing: bool,
    ) -> Result<Connected, String> {
        let attempt = async {
            let (sender, connection) = self.handshake(url, address).await?;
            if probing {
                self.probe(url, sender.clone()).await?;
            }
            Ok::<_, BoxError>((sender, connection))
        };
        match timeout(self.limit, attempt).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address}: no connection within {:?}", self.limit)),
        }
    }

    async fn handshake(&self, url: &BaseUrl, address: SocketAddr) -> Result<Connected, BoxError> {
        let stream = self.own.note(TcpStream::connect(address).await?)?;
        SockRef::from(stream.socket()).set_tcp_notsent_lowat(UNSENT)?;
        let watch = Watch::default();
        let pace = watch.pace();
        let stream = Counted::new(stream, watch);
        let (requests, connection) = match &self.tls {
            None => http2(address, stream).await?,
            Some(tls) => http2(address, tls.open(url.host_and_port().0, stream).await?).await?,
        };
        Ok((Sender { requests, pace }, connection))
    }

    /// Asks the edge whether it would take requests.
    async fn probe(&self, url: &BaseUrl, mut sender: Sender) -> Result<(), BoxError> {
        let root = format!("http://{}/", url.authority());
        let mut request = Request::post(root).body(empty())?;
        let headers = request.headers_mut();
        headers.insert(ASK, HeaderValue::from_static(ASK_PROBE));
        if let Some(token) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
        let answer = sender.send(request).await.map_err(|(_, error)| error)?;
        match edge_error(&answer) {
            Some(kind) if kind == NOT_READY => Err("not ready".into()),
            _ => Ok(()),
        }
    }
}

/// Reads the certificates, and says when this device's own ends.
fn client(tls: &tls::ClientTls) -> Result<tls::Client, TlsError> {
    let client = tls::Client::new(tls)?;
    if let Some(file) = tls.identity.as_ref().or(tls.certificate.as_ref()) {
        let expiry = tls::expiry(file)?;
        metrics::gauge!("sidecod_device_certificate_expiry_seconds").set(expiry.unix() as f64);
        if expiry.is_near() {
            tracing::warn!(%expiry, "this device's certificate ends; proxy-edge cert --renew --device NAME makes a new one");
        }
    }
    Ok(client)
}

async fn http2<I>(
    address: SocketAddr,
    stream: I,
) -> Result<(SendRequest<Pieces>, JoinHandle<()>), BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(Boxed)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_send_buf_size(AHEAD)
        .max_header_list_size(MAX_HEADERS)
        .handshake(TokioIo::new(Gather::new(stream)))
        .await?;
    let connection = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "the link to the edge ended");
        }
    });
    Ok((sender, connection))
}

/// Runs what hyper does for each request. Its futures have several KiB, and a task copies its future a
/// dozen times: a task of a box has a pointer to copy.
#[derive(Debug, Clone, Copy)]
struct Boxed;

impl<F> Executor<F> for Boxed
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(Box::pin(future));
    }
}
