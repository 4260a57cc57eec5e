//! Fewer calls of the system for a connection that many requests share.
//!
//! HTTP/2 reads 8 KiB at a time, and each read may wake the sender: what has come is taken at once.
//!
//! A task that sends over an HTTP/2 connection wakes the connection's own task, which would write at
//! once: a write for each request, and for a request with a body two, its head and its body. Before a
//! small write it lets the tasks that are ready go first, and what they all have to send leaves
//! together. Where no other task is ready nothing is waited for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

/// Bytes that are read at once.
const AHEAD: usize = 32 << 10;
/// Bytes from which on a write is worth its call by itself.
const ENOUGH: usize = 4 << 10;

pin_project! {
    /// A stream that reads ahead, and lets other tasks go first before each small write.
    #[derive(Debug)]
    pub struct Gather<S> {
        #[pin]
        stream: BufReader<S>,
        has_waited: bool,
    }
}

impl<S: AsyncRead> Gather<S> {
    /// Reads ahead in `stream`, and lets others go before each small write to it.
    pub fn new(stream: S) -> Self {
        Self {
            stream: BufReader::with_capacity(AHEAD, stream),
            has_waited: false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite> Gather<S> {
    fn poll_after_others<T>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: usize,
        write: impl FnOnce(Pin<&mut BufReader<S>>, &mut Context<'_>) -> Poll<T>,
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

impl<S: AsyncRead + AsyncWrite> AsyncWrite for Gather<S> {
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
    use http_body_util::BodyExt;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{client, server};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::DuplexStream;

    use super::*;
    use crate::body::full;

    /// Bytes that a connection of the test holds.
    const HELD: usize = 64 << 10;

    /// A stream whose calls are counted.
    struct Counted {
        stream: DuplexStream,
        calls: Arc<Calls>,
    }

    #[derive(Default)]
    struct Calls {
        reads: AtomicUsize,
        writes: AtomicUsize,
    }

    impl Calls {
        fn take(&self) -> (usize, usize) {
            let take = |calls: &AtomicUsize| calls.swap(0, Ordering::Relaxed);
            (take(&self.reads), take(&self.writes))
        }
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let read = Pin::new(&mut self.stream).poll_read(context, buffer);
            if read.is_ready() {
                self.calls.reads.fetch_add(1, Ordering::Relaxed);
            }
            read
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.calls.writes.fetch_add(1, Ordering::Relaxed);
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

    /// Reads and writes that two requests with bodies take, sent at once over a connection in use and
    /// answered with `answer` bytes each.
    async fn calls<S>(wrap: impl FnOnce(Counted) -> S, answer: usize) -> (usize, usize)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, other) = tokio::io::duplex(HELD);
        let service = service_fn(move |_: Request<Incoming>| async move {
            Ok::<_, Infallible>(Response::new(full(vec![0; answer])))
        });
        let serving = server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(other), service);
        tokio::spawn(serving);
        let calls = Arc::<Calls>::default();
        let counted = Counted {
            stream,
            calls: calls.clone(),
        };
        let stream = TokioIo::new(wrap(counted));
        let handshake = client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let mut send = || {
            let request = Request::post("http://server/").body(full("body")).unwrap();
            let answer = sender.send_request(request);
            async move {
                let answer = answer.await.unwrap();
                assert!(answer.status().is_success());
                answer.into_body().collect().await.unwrap()
            }
        };
        // Both sides settle what they may send.
        send().await;
        calls.take();
        let (first, second) = tokio::join!(send(), send());
        assert_eq!(first.to_bytes().len() + second.to_bytes().len(), 2 * answer);
        calls.take()
    }

    #[tokio::test]
    async fn what_is_sent_at_once_leaves_in_one_write() {
        let (_, writes) = calls(|stream| stream, 0).await;
        assert!(writes > 1);
        let (_, writes) = calls(Gather::new, 0).await;
        assert_eq!(writes, 1);
    }

    #[tokio::test]
    async fn what_has_come_is_read_at_once() {
        let (reads, _) = calls(|stream| stream, HELD / 4).await;
        assert!(reads > 2, "{reads}");
        let (reads, _) = calls(Gather::new, HELD / 4).await;
        assert!(reads <= 2, "{reads}");
    }
}
