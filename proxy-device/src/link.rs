//! The link to the edge: one HTTP/2 connection that is kept open.
//!
//! A connection that breaks is made again by the next request. While the edge cannot be reached,
//! requests are told so at once for a growing moment, so that none of them waits for a connection
//! that will not come.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::Counter;
use sidecod_sidecar::Body;
use sidecod_sidecar::own::{Made, Own};
use sidecod_sidecar::upstream::BaseUrl;
use sidecod_wire::header::{HTTP2, NO_HOST, PROTOCOL, TOKEN, UPSTREAM};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::config::Edge;
use crate::ingress::destination::Destination;

/// The connection is tried with a ping after this much silence, also while it is idle.
const PING_AFTER: Duration = Duration::from_secs(10);
/// It counts as broken when the ping is not answered in this time.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Bytes of the headers of an answer.
const MAX_HEADERS: u32 = 512 << 10;
/// What the edge may send before it is read.
const WINDOW: u32 = 2 << 20;

/// Why a request got no answer over the link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no connection. The request has not been sent and is given back.
    #[error("cannot reach the edge: {reason}")]
    Unreachable {
        /// What the system said.
        reason: String,
        /// The request.
        request: Box<Request<Body>>,
    },
    /// The connection broke after some of the request was sent.
    #[error("the link to the edge broke: {0}")]
    Broken(hyper::Error),
}

/// The connection to the edge.
pub struct Link {
    edge: BaseUrl,
    name: Arc<str>,
    token: Option<HeaderValue>,
    own: Own,
    connect_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<SendRequest<Body>>,
    /// No attempt before this time, after one that failed.
    retry_at: Option<Instant>,
    pause: Duration,
}

impl Link {
    /// A link that connects when it is first used.
    ///
    /// # Errors
    /// If the configuration's URL or token cannot stand in a request.
    pub fn new(edge: &Edge, own: Own) -> Result<Self, http::Error> {
        let token = edge
            .token
            .as_ref()
            .map(|token| HeaderValue::from_str(token.secret()))
            .transpose()?;
        let token = token.map(|mut token| {
            token.set_sensitive(true);
            token
        });
        Ok(Self {
            edge: edge.url.clone(),
            name: edge.url.authority().into(),
            token,
            own,
            connect_timeout: Duration::from_millis(edge.connect_timeout_ms),
            state: Mutex::default(),
        })
    }

    /// The address of the edge that requests are sent to.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Sends a request to the edge, for the upstream of its destination, and waits for the head of
    /// the answer.
    ///
    /// # Errors
    /// [`LinkError`]; an unreachable edge gives the request back.
    pub async fn send(
        &self,
        destination: &Destination,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, LinkError> {
        let mut connection = match self.connection().await {
            Ok(connection) => connection,
            Err(reason) => {
                return Err(LinkError::Unreachable {
                    reason,
                    request: Box::new(request),
                });
            }
        };
        self.address(destination, &mut request);
        connection
            .try_send_request(request)
            .await
            .map_err(|mut error| match error.take_message() {
                Some(request) => LinkError::Unreachable {
                    reason: error.into_error().to_string(),
                    request: Box::new(request),
                },
                None => LinkError::Broken(error.into_error()),
            })
    }

    /// Gives a request the form that it has on the link: HTTP/2, the app's `Host` as authority.
    fn address(&self, destination: &Destination, request: &mut Request<Body>) {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(header::HOST);
        let mut authority = request
            .uri()
            .authority()
            .cloned()
            .or_else(|| Authority::try_from(host?.as_bytes()).ok());
        if authority.is_none() {
            // HTTP/2 wants one; the edge puts the model server's own in its place.
            authority = self.edge.authority().parse().ok();
            let yes = HeaderValue::from_static("1");
            request.headers_mut().insert(NO_HOST, yes);
        }
        let mut uri = request.uri().clone().into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = authority;
        if let Ok(uri) = Uri::from_parts(uri) {
            *request.uri_mut() = uri;
        }
        let headers = request.headers_mut();
        if let Some(upstream) = &destination.upstream {
            headers.insert(UPSTREAM, upstream.clone());
        }
        if destination.version == Version::HTTP_2 {
            headers.insert(PROTOCOL, HeaderValue::from_static(HTTP2));
        }
        if let Some(token) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
    }

    async fn connection(&self) -> Result<SendRequest<Body>, String> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &mut state.connection {
            if connection.ready().await.is_ok() {
                return Ok(connection.clone());
            }
            state.connection = None;
        }
        if let Some(retry_at) = state.retry_at
            && Instant::now() < retry_at
        {
            return Err("the last attempt to connect has just failed".to_owned());
        }
        match timeout(self.connect_timeout, self.connect()).await {
            Ok(Ok(connection)) => {
                *state = State {
                    connection: Some(connection.clone()),
                    ..State::default()
                };
                Ok(connection)
            }
            failed => {
                let reason = failed.map_or_else(
                    |_| {
                        format!(
                            "no connection to {} within {:?}",
                            self.edge.authority(),
                            self.connect_timeout
                        )
                    },
                    |result| {
                        result.map_or_else(
                            |error| format!("{}: {error}", self.edge.authority()),
                            |_| String::new(),
                        )
                    },
                );
                state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                state.retry_at = Some(Instant::now() + state.pause);
                tracing::warn!(reason, pause = ?state.pause, "cannot reach the edge");
                Err(reason)
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.edge.host_and_port()).await?;
        let stream = self.own.note(stream)?;
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
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the link to the edge ended");
            }
        });
        tracing::info!(edge = self.edge.authority(), "connected");
        Ok(sender)
    }
}

/// A socket whose bytes are counted, as they are what a thin link has to carry.
struct Counted {
    stream: Made,
    sent: Counter,
    received: Counter,
}

impl Counted {
    fn new(stream: Made) -> Self {
        let counter = |direction: &'static str| metrics::counter!("sidecod_device_link_bytes_total", "direction" => direction);
        Self {
            stream,
            sent: counter("sent"),
            received: counter("received"),
        }
    }

    fn count_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.sent.increment(bytes as u64);
        }
        written
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received
            .increment((buffer.filled().len() - before) as u64);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
