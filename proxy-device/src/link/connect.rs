//! One connection to an edge: a socket, then HTTP/2 over it.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderValue, Request};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sidecod_sidecar::body::none;
use sidecod_sidecar::own::Own;
use sidecod_sidecar::upstream::BaseUrl;
use sidecod_sidecar::{Body, BoxError};
use sidecod_wire::header::{PROBE, TOKEN};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::counted::Counted;
use crate::relay::edge_error;

/// The connection is tried with a ping after this much silence, also while it is idle.
const PING_AFTER: Duration = Duration::from_secs(5);
/// It counts as broken when the ping is not answered in this time.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that the system may hold unsent: a ping waits behind them on a thin link.
const UNSENT: u32 = 16 << 10;
/// Bytes of the headers of an answer.
const MAX_HEADERS: u32 = 512 << 10;
/// What the edge may send before it is read.
const WINDOW: u32 = 2 << 20;

/// How edges are connected to.
#[derive(Debug, Clone)]
pub(super) struct Connect {
    /// What the connections are noted in.
    pub own: Own,
    /// How long one may take.
    pub limit: Duration,
    /// What admits this device.
    pub token: Option<HeaderValue>,
}

/// A connection, and the task that ends with it.
pub(super) type Connected = (SendRequest<Body>, JoinHandle<()>);

/// The kind of the error of an edge that is starting or ending.
pub(super) const NOT_READY: &str = "not-ready";

impl Connect {
    /// Connects to an edge, at most for the limit. With `probing` an answer of the edge is waited
    /// for: a frozen process has its connections accepted by the system. The error is for people.
    pub async fn to(
        &self,
        url: &BaseUrl,
        address: SocketAddr,
        probing: bool,
    ) -> Result<Connected, String> {
        let attempt = async {
            let (sender, connection) = self.handshake(address).await?;
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

    async fn handshake(&self, address: SocketAddr) -> Result<Connected, BoxError> {
        let stream = TcpStream::connect(address).await?;
        let stream = self.own.note(stream)?;
        SockRef::from(stream.socket()).set_tcp_notsent_lowat(UNSENT)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .max_header_list_size(MAX_HEADERS)
            .handshake(TokioIo::new(Counted::new(stream)))
            .await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "the link to the edge ended");
            }
        });
        Ok((sender, connection))
    }

    /// Asks the edge whether it would take requests.
    async fn probe(&self, url: &BaseUrl, mut sender: SendRequest<Body>) -> Result<(), BoxError> {
        let root = format!("http://{}/", url.authority());
        let mut request = Request::head(root).body(none())?;
        let headers = request.headers_mut();
        headers.insert(PROBE, HeaderValue::from_static("1"));
        if let Some(token) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
        let answer = sender.send_request(request).await?;
        match edge_error(&answer) {
            Some(kind) if kind == NOT_READY => Err("not ready".into()),
            _ => Ok(()),
        }
    }
}
