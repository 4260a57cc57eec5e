//! Fewer writes for a connection that many tasks send over.
//!
//! A task that sends over an HTTP/2 connection wakes the connection's own task, which would write at
//! once: a write for each request, and for a request with a body two, its head and its body. Before a
//! small write it lets the tasks that are ready go first, and what they all have to send leaves
//! together. Where no other task is ready nothing is waited for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes from which on a write is worth its call by itself.
const ENOUGH: usize = 4 << 10;

pin_project! {
    /// A stream that lets other tasks go first before each small write.
    #[derive(Debug)]
    pub struct Gather<S> {
        #[pin]
        stream: S,
        has_waited: bool,
    }
}

impl<S> Gather<S> {
    /// Lets others go before each small write to `stream`.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            has_waited: false,
        }
    }
}

impl<S: AsyncWrite> Gather<S> {
    fn poll_after_others<T>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: usize,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let this = self.project();
        *this.has_waited = bytes < ENOUGH && !*this.has_waited;
        if *this.has_waited {
            // Tokio puts a task that wakes itself behind all that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        write(this.stream, context)
    }
}

impl<S: AsyncRead> AsyncRead for Gather<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().stream.poll_read(context, buffer)
    }
}

impl<S: AsyncWrite> AsyncWrite for Gather<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_after_others(context, bytes.len(), |stream, context| {
            stream.poll_write(context, bytes)
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.poll_after_others(context, bytes, |stream, context| {
            stream.poll_write_vectored(context, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{client, server};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{DuplexStream, WriteHalf};

    use super::*;
    use crate::body::{empty, full};

    /// Half of a stream, whose writes are counted.
    struct Counted {
        stream: WriteHalf<DuplexStream>,
        writes: Arc<AtomicUsize>,
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.stream).poll_write(context, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }

    /// Writes that two requests with bodies take, sent at once over a connection in use.
    async fn writes<W>(wrap: impl FnOnce(Counted) -> W) -> usize
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, other) = tokio::io::duplex(64 << 10);
        let answer = |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(empty())) };
        let serving = server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(other), service_fn(answer));
        tokio::spawn(serving);
        let writes = Arc::new(AtomicUsize::new(0));
        let (reads, stream) = tokio::io::split(stream);
        let counted = Counted {
            stream,
            writes: writes.clone(),
        };
        let stream = TokioIo::new(tokio::io::join(reads, wrap(counted)));
        let handshake = client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let mut send = || {
            let request = Request::post("http://server/").body(full("body")).unwrap();
            sender.send_request(request)
        };
        // Both sides settle what they may send.
        send().await.unwrap();
        let before = writes.load(Ordering::Relaxed);
        let (first, second) = tokio::join!(send(), send());
        assert!(first.unwrap().status().is_success() && second.unwrap().status().is_success());
        writes.load(Ordering::Relaxed) - before
    }

    #[tokio::test]
    async fn what_is_sent_at_once_leaves_in_one_write() {
        assert!(writes(|stream| stream).await > 1);
        assert_eq!(writes(Gather::new).await, 1);
    }
}
