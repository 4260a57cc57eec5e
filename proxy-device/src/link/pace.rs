//! In which pieces bodies go over a link.
//!
//! A frame of HTTP/2 is sent whole: on a thin link a small request waits behind one of a large body, so
//! pieces have to be small. Each costs both sidecars calls of the system, though, and where the link is
//! quick these are what a body costs; so there pieces are larger.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use sidecod_sidecar::body::behind;
use sidecod_sidecar::{Body, BoxError};
use tokio::time::Instant;

/// Bytes of a piece on a link that is not quick.
const SMALL: usize = 16 << 10;
/// Bytes that a quick link takes in a second: 64 Mbit/s, a piece of 64 KiB in 8 ms.
const QUICK: f64 = 8e6;
/// How long a link is watched before it is judged.
const SPAN: Duration = Duration::from_millis(100);

/// Whether a connection's link is quick. It counts as none until it has taken so much: a ping must not
/// wait behind a large piece for so long that the connection counts as broken.
#[derive(Debug, Default)]
pub(super) struct Pace {
    is_quick: AtomicBool,
}

/// What a socket takes, for its [`Pace`].
#[derive(Debug, Default)]
pub(super) struct Watch {
    pace: Arc<Pace>,
    /// Since when a write waits.
    waits: Option<Instant>,
    /// What has been seen since the last judgement.
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    bytes: usize,
    waited: Duration,
}

impl Watch {
    /// What is known of the link.
    pub fn pace(&self) -> Arc<Pace> {
        self.pace.clone()
    }

    /// Takes what a write came to: bytes that went, or that it waits.
    pub fn wrote(&mut self, bytes: Option<usize>) {
        let now = Instant::now();
        let seen = self.seen.get_or_insert(Seen {
            since: now,
            bytes: 0,
            waited: Duration::ZERO,
        });
        let Some(bytes) = bytes else {
            self.waits.get_or_insert(now);
            return;
        };
        seen.bytes += bytes;
        if let Some(begun) = self.waits.take() {
            seen.waited += now - begun;
        }
        let span = now - seen.since;
        if span < SPAN {
            return;
        }
        // Where little went and writes seldom waited, there was not more to send.
        if seen.bytes as f64 > QUICK * span.as_secs_f64() {
            self.pace.is_quick.store(true, Ordering::Relaxed);
        } else if seen.waited > span / 2 {
            self.pace.is_quick.store(false, Ordering::Relaxed);
        }
        self.seen = None;
    }
}

/// A body in pieces.
pub(super) struct Pieces {
    body: Body,
    pace: Arc<Pace>,
    /// Of what the body gave last.
    rest: Bytes,
}

impl Pieces {
    /// The body in pieces for a link.
    pub fn new(body: Body, pace: Arc<Pace>) -> Self {
        Self {
            body,
            pace,
            rest: Bytes::new(),
        }
    }

    /// The body, of which nothing has been taken.
    pub fn into_inner(self) -> Body {
        self.body
    }

    fn piece(&mut self) -> Bytes {
        if self.pace.is_quick.load(Ordering::Relaxed) || self.rest.len() <= SMALL {
            return std::mem::take(&mut self.rest);
        }
        self.rest.split_to(SMALL)
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        behind(self.rest.len(), &self.body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt;
    use sidecod_sidecar::body::full;
    use tokio::time::{advance, sleep};

    use super::*;

    /// A socket that sends so many bytes in a second and holds one piece.
    async fn send(watch: &mut Watch, pieces: usize, piece: usize, bytes_a_second: f64) {
        for _ in 0..pieces {
            watch.wrote(None);
            watch.wrote(None);
            advance(Duration::from_secs_f64(piece as f64 / bytes_a_second)).await;
            watch.wrote(Some(piece));
        }
    }

    async fn pieces(pace: &Arc<Pace>) -> Vec<usize> {
        let body = Pieces::new(full(vec![7; 100_000]), pace.clone());
        assert_eq!(body.size_hint().exact(), Some(100_000));
        let mut body = Box::pin(body);
        let mut pieces = Vec::new();
        while let Some(piece) = body.frame().await {
            let piece = piece.unwrap().into_data().unwrap();
            pieces.push(piece.len());
            let left = 100_000 - pieces.iter().sum::<usize>();
            assert_eq!(body.size_hint().exact(), Some(left as u64));
            assert_eq!(body.is_end_stream(), left == 0);
        }
        pieces
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_are_large_where_the_link_is_quick_alone() {
        let mut watch = Watch::default();
        let pace = watch.pace();
        let small = [SMALL; 6].into_iter().chain([100_000 - 6 * SMALL]);
        let small: Vec<_> = small.collect();
        assert_eq!(pieces(&pace).await, small);
        send(&mut watch, 1000, SMALL, 1.6e7).await;
        assert_eq!(pieces(&pace).await, [100_000]);
        send(&mut watch, 10, 64 << 10, 1e6).await;
        assert_eq!(pieces(&pace).await, small);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_on_which_little_is_sent_is_not_judged() {
        let mut watch = Watch::default();
        let pace = watch.pace();
        for bytes_a_second in [1.6e7, 1e6] {
            send(&mut watch, 1000, SMALL, bytes_a_second).await;
            let before = pieces(&pace).await;
            for _ in 0..20 {
                send(&mut watch, 1, 1000, 1e6).await;
                sleep(Duration::from_millis(30)).await;
            }
            assert_eq!(pieces(&pace).await, before);
        }
    }
}
