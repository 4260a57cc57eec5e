//! A socket whose bytes are counted, and whose pace is watched.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use metrics::Counter;
use sidecod_sidecar::own::Made;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::Watch;

/// A socket whose bytes are counted, as they are what a thin link has to carry.
pub(super) struct Counted {
    stream: Made,
    sent: Counter,
    received: Counter,
    watch: Watch,
}

impl Counted {
    pub(super) fn new(stream: Made, watch: Watch) -> Self {
        let counter = |direction: &'static str| metrics::counter!("sidecod_device_link_bytes_total", "direction" => direction);
        Self {
            stream,
            sent: counter("sent"),
            received: counter("received"),
            watch,
        }
    }

    fn count_sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.sent.increment(bytes as u64);
                self.watch.wrote(Some(bytes));
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch.wrote(None),
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
