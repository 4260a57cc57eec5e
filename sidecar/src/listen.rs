//! Listeners: hyper's own builders with every limit set, a bound on connections, and a drain that
//! ends.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::body::Body;
use crate::shutdown::Shutdown;

/// Pause after the system refused a connection, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What an HTTP/2 peer may send on one stream and on the connection before it is read: enough for a
/// photo, so that a long round trip does not slow an upload.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Bounds of a listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerLimits {
    /// Milliseconds in which the headers of a request must have arrived. hyper counts them from the
    /// end of the request before, so an idle connection lives no longer.
    pub header_timeout_ms: u64,
    /// Bytes of the headers of one request.
    pub max_header_bytes: u32,
    /// Connections at a time; further ones wait in the system's queue.
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

/// Serves HTTP/1.1 and HTTP/1.0 until `shutdown`, then drains.
pub async fn http1(
    listener: TcpListener,
    limits: &ServerLimits,
    service: impl Service,
    shutdown: Shutdown,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
        .max_header_size(limits.max_header_bytes as usize)
        .max_buf_size((limits.max_header_bytes as usize).max(8 << 10));
    serve(listener, limits, shutdown, move |stream| {
        builder.serve_connection(TokioIo::new(stream), service.clone())
    })
    .await;
}

/// Serves HTTP/2 with prior knowledge until `shutdown`, then drains.
pub async fn http2(
    listener: TcpListener,
    limits: &ServerLimits,
    service: impl Service,
    shutdown: Shutdown,
) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(limits.max_header_bytes)
        .max_concurrent_streams(limits.max_streams)
        // A device resets a stream when its app goes away; many apps may go at once, and the
        // requests of the others must not go with them.
        .max_pending_accept_reset_streams(Some(limits.max_streams as usize))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    serve(listener, limits, shutdown, move |stream| {
        builder.serve_connection(TokioIo::new(stream), service.clone())
    })
    .await;
}

async fn serve<C>(
    listener: TcpListener,
    limits: &ServerLimits,
    mut shutdown: Shutdown,
    connect: impl Fn(TcpStream) -> C,
) where
    C: GracefulConnection<Error = hyper::Error> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accept = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = shutdown.wait() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                // Without it small frames wait for acknowledgements.
                let _ = stream.set_nodelay(true);
                let connection = graceful.watch(connect(stream));
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "connection");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no further connections for a moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let deadline = Duration::from_millis(limits.drain_ms);
    if tokio::time::timeout(deadline, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            ?deadline,
            "requests were still in flight when the drain ended"
        );
    }
}

/// A service out of an asynchronous function.
pub fn service<F, R>(answer: F) -> impl Service
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    hyper::service::service_fn(move |request| {
        let answer = answer(request);
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
        std::net::SocketAddr,
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
