//! One connection to an edge: a socket, TLS over it where the edge's URL is https, and HTTP/2 in that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sidecod_sidecar::own::Own;
use sidecod_sidecar::tls::{self, TlsError};
use sidecod_sidecar::{Body, BoxError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::counted::Counted;
use crate::config::Edge;

/// The connection is tried with a ping after this much silence, also while it is idle.
const PING_AFTER: Duration = Duration::from_secs(10);
/// It counts as broken when the ping is not answered in this time.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// How it is encrypted; not at all where there is none.
    pub tls: Option<Tls>,
}

/// The device's certificates, and the host that the edge's must be for.
#[derive(Clone)]
pub(super) struct Tls {
    client: Arc<tls::Client>,
    host: String,
}

impl Tls {
    /// What the configuration says of an edge.
    ///
    /// # Errors
    /// [`TlsError`] that names the file.
    pub fn of(edge: &Edge) -> Result<Option<Self>, TlsError> {
        let Some(tls) = &edge.tls else {
            return Ok(None);
        };
        let client = tls::Client::new(tls)?;
        if let Some(file) = tls.identity.as_ref().or(tls.certificate.as_ref()) {
            let expiry = tls::expiry(file)?;
            metrics::gauge!("sidecod_device_certificate_expiry_seconds").set(expiry.unix() as f64);
            if expiry.is_near() {
                tracing::warn!(%expiry, "this device's certificate ends; proxy-edge cert --renew --device NAME makes a new one");
            }
        }
        Ok(Some(Self {
            client: Arc::new(client),
            host: edge.url.host_and_port().0.to_owned(),
        }))
    }
}

impl Connect {
    /// Connects to an edge, at most for the limit. The error is for people.
    pub async fn to(&self, address: SocketAddr) -> Result<SendRequest<Body>, String> {
        match timeout(self.limit, self.handshake(address)).await {
            Ok(Ok(sender)) => {
                tracing::info!(%address, "connected to the edge");
                Ok(sender)
            }
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address}: no connection within {:?}", self.limit)),
        }
    }

    async fn handshake(&self, address: SocketAddr) -> Result<SendRequest<Body>, BoxError> {
        let stream = TcpStream::connect(address).await?;
        let stream = Counted::new(self.own.note(stream)?);
        match &self.tls {
            None => http2(address, stream).await,
            Some(tls) => http2(address, tls.client.open(&tls.host, stream).await?).await,
        }
    }
}

async fn http2<I>(address: SocketAddr, stream: I) -> Result<SendRequest<Body>, BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "the link to the edge ended");
        }
    });
    Ok(sender)
}
