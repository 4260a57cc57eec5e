//! Whether the app still waits for its answer.
//!
//! An app that has ended its side of the connection may have gone, or may have sent all that it has
//! to send and wait (half-close). The socket does not tell the two apart until something is written:
//! only then a system whose program has gone says so. So the app is sent `100 Continue`, which means
//! nothing once the request is complete, and which every client of HTTP/1.1 has to skip (RFC 9110,
//! 15.2). An app that speaks HTTP/1.0 gets none, and counts as waiting.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// How long a request is in hand before the app is looked after.
const GRACE: Duration = Duration::from_millis(500);
/// How long its system is given to say that it has gone.
const REPLY: Duration = Duration::from_millis(200);
/// Between two questions to an app that has ended its side and waits.
const AGAIN: Duration = Duration::from_secs(5);
const QUESTION: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A socket that hyper reads and writes while a [`Presence`] looks at it.
pub struct Socket {
    /// What was read before.
    first: Bytes,
    shared: Arc<Shared>,
}

/// Looks whether the app is still there.
#[derive(Clone)]
pub struct Presence(Arc<Shared>);

struct Shared {
    stream: TcpStream,
    /// Whether all that was written has gone out: a question must not stand in an answer.
    flushed: AtomicBool,
}

impl Socket {
    /// A socket from which `first` has been read already, and what looks at it.
    #[must_use]
    pub fn new(first: Bytes, stream: TcpStream) -> (Self, Presence) {
        let shared = Arc::new(Shared {
            stream,
            flushed: AtomicBool::new(true),
        });
        let socket = Self {
            first,
            shared: shared.clone(),
        };
        (socket, Presence(shared))
    }

    fn poll_write_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.shared.flushed.store(false, Ordering::Release);
        loop {
            ready!(self.shared.stream.poll_write_ready(context))?;
            match write(&self.shared.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl Presence {
    /// Returns when the app has gone, while a request of it is in hand whose answer has not begun.
    /// `may_ask` is for apps that speak HTTP/1.1.
    pub async fn gone(&self, may_ask: bool) {
        loop {
            sleep(GRACE).await;
            let Ok(ready) = self.0.stream.ready(Interest::READABLE).await else {
                return;
            };
            if is_reset(ready) {
                return;
            }
            if !ready.is_read_closed() || !may_ask || !self.0.flushed.load(Ordering::Acquire) {
                continue;
            }
            match self.0.stream.try_write(QUESTION) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
            sleep(REPLY).await;
            match self.0.stream.ready(Interest::WRITABLE).await {
                Ok(ready) if !is_reset(ready) => sleep(AGAIN).await,
                _ => return,
            }
        }
    }
}

fn is_reset(ready: tokio::io::Ready) -> bool {
    ready.is_error() || ready.is_write_closed()
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let bytes = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(bytes));
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.shared.stream.poll_read_ready(context))?;
            match self.shared.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes the socket when it has nothing left to write.
        self.shared.flushed.store(true, Ordering::Release);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&self.shared.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
