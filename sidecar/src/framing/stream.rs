//! A socket whose requests are checked before hyper reads them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::{Violation, Walk};

/// What hyper is given in place of the byte that breaks a rule: it refuses a NUL anywhere in a head,
/// and parses what looks complete.
const POISON: &[u8] = b"\0\r\n\r\n";
/// How long a connection that is closed in the middle of a request is read on, so that the app gets
/// to read its answer: bytes that nobody reads make the system take the answer back (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are read on in that time.
const LINGER_BYTES: u64 = 64 << 20;

/// A socket whose requests are checked. `G` is kept as long as the socket is open.
pub struct Stream<S, G = ()> {
    socket: S,
    walk: Walk,
    state: State,
    linger: Option<Linger>,
    _guard: G,
}

enum State {
    Good,
    /// A head broke a rule; what is left of [`POISON`].
    Poison(&'static [u8]),
    /// A body broke a rule.
    Broken(Violation),
    /// The app will send no more.
    Ended,
}

struct Linger {
    until: Pin<Box<Sleep>>,
    bytes: u64,
}

impl<S, G> Stream<S, G> {
    /// A socket that has been accepted. Heads over `max_head` bytes are not checked: hyper must
    /// refuse them.
    pub fn new(socket: S, max_head: usize, guard: G) -> Self {
        Self {
            socket,
            walk: Walk::new(max_head),
            state: State::Good,
            linger: None,
            _guard: guard,
        }
    }
}

impl<S: AsyncRead + Unpin, G> Stream<S, G> {
    fn poll_good(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        if read.is_empty() {
            self.state = State::Ended;
            return Poll::Ready(Ok(()));
        }
        let Err(stop) = self.walk.over(read) else {
            return Poll::Ready(Ok(()));
        };
        tracing::debug!(rule = %stop.rule, "a request is refused");
        metrics::counter!("sidecod_refused_requests_total").increment(1);
        buffer.set_filled(before + stop.good);
        if stop.in_head {
            self.state = State::Poison(POISON);
            self.poll_poison(buffer)
        } else {
            self.state = State::Broken(stop.rule);
            if stop.good == 0 {
                return Poll::Ready(Err(broken(stop.rule)));
            }
            Poll::Ready(Ok(()))
        }
    }

    /// Gives hyper what it refuses, and then nothing.
    fn poll_poison(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let State::Poison(left) = &mut self.state {
            let (now, later) = left.split_at(left.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *left = later;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads on until the app has ended too, or enough is enough.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if matches!(self.state, State::Ended) {
            return Poll::Ready(());
        }
        let wait =
            matches!(self.state, State::Poison(_) | State::Broken(_)) || !self.walk.is_between();
        let linger = self.linger.get_or_insert_with(|| Linger {
            until: Box::pin(sleep(LINGER)),
            bytes: 0,
        });
        let mut scratch = [0; 8 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.socket).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    linger.bytes += buffer.filled().len() as u64;
                    if linger.bytes > LINGER_BYTES || linger.until.is_elapsed() {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                // Between two requests a client may keep its side open for ever.
                Poll::Pending if !wait => return Poll::Ready(()),
                Poll::Pending => return linger.until.as_mut().poll(context),
            }
        }
    }
}

fn broken(rule: Violation) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, rule)
}

impl<S: AsyncRead + Unpin, G: Unpin> AsyncRead for Stream<S, G> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.state {
            State::Good => this.poll_good(context, buffer),
            // hyper has seen enough to refuse the request.
            State::Poison([]) => Poll::Pending,
            State::Poison(_) => this.poll_poison(buffer),
            State::Broken(rule) => Poll::Ready(Err(broken(rule))),
            State::Ended => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, G: Unpin> AsyncWrite for Stream<S, G> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.socket).poll_shutdown(context))?;
        }
        this.poll_linger(context).map(Ok)
    }
}
