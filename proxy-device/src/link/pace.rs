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
use sidecod_sidecar::{Body, BoxError};
use tokio::time::Instant;

/// Bytes of a piece on a link that is not quick.
const SMALL: usize = 16 << 10;
/// Bytes that a quick link takes in a second: 64 Mbit/s, a piece of 64 KiB in 8 ms.
const QUICK: f64 = 8e6;
/// How long a link is watched before it is judged.
const SPAN: Duration = Duration::from_millis(20);
/// How long a judgement stands.
const STANDS: Duration = Duration::from_mins(1);

/// Whether a connection's link is quick. It counts as quick until its socket makes writes wait.
#[derive(Debug)]
pub(super) struct Pace {
    is_quick: AtomicBool,
}

/// What a socket takes, for its [`Pace`].
#[derive(Debug)]
pub(super) struct Watch {
    pace: Arc<Pace>,
    /// Since when a write waits.
    waits: Option<Instant>,
    /// What has been seen since a write had to wait.
    seen: Option<Seen>,
    /// Until when it counts as not quick.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    bytes: usize,
    waited: Duration,
}

impl Watch {
    /// Watches a socket.
    pub fn new() -> (Self, Arc<Pace>) {
        let pace = Arc::new(Pace {
            is_quick: AtomicBool::new(true),
        });
        let watch = Self {
            pace: pace.clone(),
            waits: None,
            seen: None,
            until: None,
        };
        (watch, pace)
    }

    /// Takes what a write came to: bytes that went, or that it waits.
    pub fn wrote(&mut self, bytes: Option<usize>) {
        match bytes {
            None if self.waits.is_some() => {}
            None => {
                let now = Instant::now();
                self.waits = Some(now);
                self.seen.get_or_insert(Seen {
                    since: now,
                    bytes: 0,
                    waited: Duration::ZERO,
                });
            }
            Some(bytes) => {
                if let Some(seen) = &mut self.seen {
                    seen.bytes += bytes;
                }
                if let Some(begun) = self.waits.take() {
                    self.judge(begun, Instant::now());
                } else if self.until.is_some_and(|until| until <= Instant::now()) {
                    self.set(true, None);
                }
            }
        }
    }

    /// Judges by what was seen until the end of a wait, if that is enough.
    fn judge(&mut self, begun: Instant, now: Instant) {
        let Some(seen) = &mut self.seen else { return };
        seen.waited += now - begun;
        let span = now - seen.since;
        if span < SPAN {
            return;
        }
        // Where writes seldom waited, there was not more to send.
        if seen.waited > span / 2 {
            let is_quick = seen.bytes as f64 > QUICK * span.as_secs_f64();
            self.set(is_quick, (!is_quick).then(|| now + STANDS));
        }
        self.seen = None;
    }

    fn set(&mut self, is_quick: bool, until: Option<Instant>) {
        self.pace.is_quick.store(is_quick, Ordering::Relaxed);
        self.until = until;
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
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
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
    async fn pieces_are_small_where_the_link_is_not_quick() {
        let (mut watch, pace) = Watch::new();
        assert_eq!(pieces(&pace).await, [100_000]);
        send(&mut watch, 4, 64 << 10, 1e6).await;
        let small = [SMALL; 6].into_iter().chain([100_000 - 6 * SMALL]);
        assert_eq!(pieces(&pace).await, small.collect::<Vec<_>>());
        send(&mut watch, 400, SMALL, 1e8).await;
        assert_eq!(pieces(&pace).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_judged_while_it_is_full_alone() {
        let (mut watch, pace) = Watch::new();
        for _ in 0..10 {
            send(&mut watch, 1, 1000, 1e6).await;
            sleep(Duration::from_millis(30)).await;
        }
        assert_eq!(pieces(&pace).await.len(), 1);
        // One that is slow stays it through such a time, but not for ever.
        send(&mut watch, 4, SMALL, 1e5).await;
        for _ in 0..3 {
            send(&mut watch, 1, 1000, 1e6).await;
            sleep(Duration::from_millis(30)).await;
        }
        assert_eq!(pieces(&pace).await.len(), 7);
        sleep(STANDS).await;
        watch.wrote(Some(100));
        watch.wrote(Some(100));
        assert_eq!(pieces(&pace).await.len(), 1);
    }
}
