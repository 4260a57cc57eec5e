//! Listeners: hyper's own builders with every limit set, a bound on connections, and a drain that
//! ends.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{Body, empty};
use crate::framing;
use crate::gather::Gather;
use crate::presence::{Presence, Socket};
use crate::shutdown::Shutdown;
use crate::tls;

/// Pause after the system refused a connection, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What an HTTP/2 peer may send on one stream and on the connection before it is read: enough for a
/// photo, so that a long round trip does not slow an upload.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// What it may send in one frame: a device sends so much where its link is quick.
const FRAME: u32 = 64 << 10;

/// Bounds of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerLimits {
    /// Milliseconds in which the headers of a request must have arrived. hyper counts them from the
    /// end of the request before, so an idle connection lives no longer.
    pub header_timeout_ms: u64,
    /// Bytes of the headers of one request.
    pub max_header_bytes: u32,
    /// Connections at a time, of all the listeners that share them; further ones wait in the
    /// system's queue.
    pub max_connections: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub max_streams: u32,
    /// Milliseconds that requests in flight are given when the process ends.
    pub drain_ms: u64,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            header_timeout_ms: 60_000,
            max_header_bytes: 64 << 10,
            max_connections: 1024,
            max_streams: 256,
            drain_ms: 10_000,
        }
    }
}

/// What answers the requests of a listener.
pub trait Service:
    hyper::service::Service<
        Request<Incoming>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Service for S where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// Serves HTTP/1.1 and HTTP/1.0 until `shutdown`, then drains. Requests are [checked](framing) before
/// they are read; a service may take the connection over with [`hyper::upgrade`].
pub async fn http1(
    listener: TcpListener,
    limits: &ServerLimits,
    service: impl Service,
    shutdown: Shutdown,
) {
    let http = Http::new(limits);
    let connections = Connections::new(limits);
    let ended = shutdown.clone();
    let serve = move |stream, _, place| {
        let (http, service, shutdown) = (http.clone(), service.clone(), shutdown.clone());
        async move {
            let none = Bytes::new();
            http.http1(none, stream, service, shutdown, place).await;
        }
    };
    connections.serve(listener, ended, serve).await;
}

/// Serves HTTP/2 with prior knowledge until `shutdown`, then drains.
pub async fn http2(
    listener: TcpListener,
    limits: &ServerLimits,
    service: impl Service,
    shutdown: Shutdown,
) {
    http2_in(listener, None, limits, service, shutdown).await;
}

/// The same inside TLS, where there are certificates for it.
pub async fn http2_in(
    listener: TcpListener,
    tls: Option<Arc<tls::Server>>,
    limits: &ServerLimits,
    service: impl Service,
    shutdown: Shutdown,
) {
    let http = Http::new(limits);
    let connections = Connections::new(limits);
    let ended = shutdown.clone();
    let serve = move |stream, peer, place| {
        let (http, service, shutdown) = (http.clone(), service.clone(), shutdown.clone());
        let tls = tls.clone();
        async move {
            match tls {
                None => http.http2(stream, service, shutdown, place).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => http.http2(stream, service, shutdown, place).await,
                    Err(reason) => {
                        metrics::counter!("sidecod_edge_tls_refused_total").increment(1);
                        tracing::warn!(%peer, reason, "a TLS handshake failed");
                    }
                },
            }
        }
    };
    connections.serve(listener, ended, serve).await;
}

/// hyper's own builders with every limit set.
#[derive(Clone)]
pub struct Http {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    max_head: usize,
    header_timeout: Duration,
}

impl Http {
    /// The builders with these limits.
    #[must_use]
    pub fn new(limits: &ServerLimits) -> Self {
        let max_head = limits.max_header_bytes as usize;
        let header_timeout = Duration::from_millis(limits.header_timeout_ms);
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .half_close(true)
            .header_read_timeout(header_timeout)
            .max_header_size(max_head)
            .max_buf_size(max_head.max(8 << 10));
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .auto_date_header(false)
            // HTTP/2 counts a field's overhead too.
            .max_header_list_size(limits.max_header_bytes.saturating_mul(2))
            .max_concurrent_streams(limits.max_streams)
            // A device resets a stream when its app goes away; many apps may go at once, and the
            // requests of the others must not go with them.
            .max_pending_accept_reset_streams(Some(limits.max_streams as usize))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        Self {
            http1,
            http2,
            max_head,
            header_timeout,
        }
    }

    /// How long the headers of a request may take.
    #[must_use]
    pub fn header_timeout(&self) -> Duration {
        self.header_timeout
    }

    /// Serves one connection of HTTP/1.1 or HTTP/1.0 to its end; `first` has been read from it
    /// already. Requests are [checked](framing) before hyper reads them. Whoever takes the connection
    /// over by an upgrade keeps its place with it.
    pub async fn http1(
        &self,
        first: Bytes,
        stream: TcpStream,
        service: impl Service,
        mut shutdown: Shutdown,
        place: Place,
    ) {
        let (socket, presence) = Socket::new(first, stream);
        let stream = framing::Stream::new(socket, self.max_head, place.clone());
        let service = while_present(service, presence);
        let connection = self.http1.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection.with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.wait() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        end(ended, place);
    }

    /// Serves one connection of HTTP/2 to its end.
    pub async fn http2<I>(&self, io: I, service: impl Service, mut shutdown: Shutdown, place: Place)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = self
            .http2
            .serve_connection(TokioIo::new(Gather::new(io)), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.wait() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        end(ended, place);
    }
}

fn end(ended: hyper::Result<()>, place: Place) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
    }
    drop(place);
}

/// How many connections there may be at a time, and the end that waits for them. Listeners that hold
/// clones share both.
#[derive(Clone)]
pub struct Connections {
    permits: Arc<Semaphore>,
    all: u32,
    drain: Duration,
}

/// The place of a connection: it counts, and is waited for at the end, until the last clone is gone.
#[derive(Debug, Clone)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Connections {
    /// So many as the limits say.
    #[must_use]
    pub fn new(limits: &ServerLimits) -> Self {
        let all = u32::try_from(limits.max_connections).unwrap_or(u32::MAX);
        Self {
            permits: Arc::new(Semaphore::new(all as usize)),
            all,
            drain: Duration::from_millis(limits.drain_ms),
        }
    }

    /// Has each connection of a listener served, with the address of its other end, until
    /// `shutdown`; then waits for all connections, also those of other listeners.
    pub async fn serve<F, R>(&self, listener: TcpListener, mut shutdown: Shutdown, serve: F)
    where
        F: Fn(TcpStream, SocketAddr, Place) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        loop {
            let accept = async {
                let permit = self.permits.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accept => accepted,
                () = shutdown.wait() => break,
            };
            // Nobody closes the semaphore.
            let Ok(permit) = permit else { break };
            match accepted {
                Ok((stream, peer)) => {
                    // Without it small frames wait for acknowledgements.
                    let _ = stream.set_nodelay(true);
                    let place = Place {
                        _permit: Arc::new(permit),
                    };
                    tokio::spawn(serve(stream, peer, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "no further connections for a moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        // Who has all the places has waited for all connections.
        let ended = tokio::time::timeout(self.drain, self.permits.acquire_many(self.all)).await;
        if ended.is_err() {
            tracing::warn!(
                deadline = ?self.drain,
                "requests were still in flight when the drain ended"
            );
        }
    }
}

/// Gives up a request whose app has gone.
fn while_present(service: impl Service, presence: Presence) -> impl Service {
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let presence = presence.clone();
        let may_ask = request.version() == Version::HTTP_11;
        let answer = service.call(request);
        async move {
            tokio::select! {
                biased;
                answer = answer => answer,
                // Nobody reads this.
                () = presence.gone(may_ask) => Ok(Response::new(empty())),
            }
        }
    })
}

/// A service out of an asynchronous function.
pub fn service<F, R>(answer: F) -> impl Service
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    hyper::service::service_fn(move |request| {
        // hyper moves the future about; it is large.
        let answer = Box::pin(answer(request));
        async move { Ok(answer.await) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    async fn start(
        limits: ServerLimits,
        answer: impl Service,
    ) -> (
        SocketAddr,
        crate::shutdown::Trigger,
        tokio::task::JoinHandle<()>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = Shutdown::new();
        let task = tokio::spawn(async move { http1(listener, &limits, answer, shutdown).await });
        (address, trigger, task)
    }

    fn hello() -> impl Service {
        service(|_| async { Response::new(body::full("hello")) })
    }

    async fn answer_of(stream: &mut TcpStream) -> String {
        let mut bytes = vec![0; 1024];
        let read = stream.read(&mut bytes).await.unwrap();
        String::from_utf8(bytes[..read].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_kept_open() {
        let (address, _trigger, _task) = start(ServerLimits::default(), hello()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            stream.write_all(GET).await.unwrap();
            assert!(answer_of(&mut stream).await.starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn headers_that_do_not_arrive_end_the_connection() {
        let limits = ServerLimits {
            header_timeout_ms: 20,
            ..ServerLimits::default()
        };
        let (address, _trigger, _task) = start(limits, hello()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert!(!all.starts_with(b"HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn headers_over_the_limit_are_refused() {
        let (address, _trigger, _task) = start(ServerLimits::default(), hello()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let long = format!(
            "GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n",
            "x".repeat(64 << 10)
        );
        // The answer may come before all of it is written.
        let _ = stream.write_all(long.as_bytes()).await;
        let answer = answer_of(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_over_the_cap_waits_for_another_to_end() {
        let limits = ServerLimits {
            max_connections: 1,
            ..ServerLimits::default()
        };
        let (address, _trigger, _task) = start(limits, hello()).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(GET).await.unwrap();
        answer_of(&mut first).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(GET).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(30), second.readable()).await;
        assert!(early.is_err());
        drop(first);
        assert!(answer_of(&mut second).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn what_is_in_flight_is_answered_before_the_end() {
        let (arrived, mut arrivals) = mpsc::channel(1);
        let gate = Arc::new(Semaphore::new(0));
        let opened = gate.clone();
        let slow = service(move |_| {
            let (arrived, gate) = (arrived.clone(), opened.clone());
            async move {
                arrived.send(()).await.unwrap();
                let _permit = gate.acquire().await.unwrap();
                Response::new(body::full("late"))
            }
        });
        let (address, trigger, task) = start(ServerLimits::default(), slow).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(GET).await.unwrap();
        arrivals.recv().await.unwrap();
        trigger.fire();
        gate.add_permits(1);
        assert!(answer_of(&mut stream).await.ends_with("late"));
        task.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_drain_ends_at_its_deadline() {
        let limits = ServerLimits {
            drain_ms: 20,
            ..ServerLimits::default()
        };
        let (arrived, mut arrivals) = mpsc::channel(1);
        let never = service(move |_| {
            let arrived = arrived.clone();
            async move {
                arrived.send(()).await.unwrap();
                std::future::pending().await
            }
        });
        let (address, trigger, task) = start(limits, never).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(GET).await.unwrap();
        arrivals.recv().await.unwrap();
        trigger.fire();
        task.await.unwrap();
    }
}
