//! Bodies: one type for all, a cap on what is held, and going on with what was read already.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use tokio::time::Sleep;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body whose kind does not matter.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body without bytes.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|error| match error {}).boxed_unsync()
}

/// No body: also no length of none, which [`empty`] announces where the method may have a body.
#[must_use]
pub fn none() -> Body {
    Silent(None).boxed_unsync()
}

/// No body after a head that tells of the length of one, as in an answer 304.
#[must_use]
pub fn silent() -> Body {
    Silent(Some(0)).boxed_unsync()
}

struct Silent(Option<u64>);

impl http_body::Body for Silent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        // hyper drops the length of a body that has ended.
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// A body that is there as a whole.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|error| match error {})
        .boxed_unsync()
}

/// A body that arrives.
pub fn streamed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A body that keeps `guard` until it has been sent or given up.
#[must_use]
pub fn guarded(body: Body, guard: impl Send + 'static) -> Body {
    Guarded {
        body,
        _guard: Box::new(guard),
    }
    .boxed_unsync()
}

struct Guarded {
    body: Body,
    _guard: Box<dyn Send>,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer that arrives. If it breaks off, the break is passed on a moment after what
/// came before it: hyper forgets what it has not yet written when a body breaks, the head of the
/// answer included.
pub fn relayed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Relayed {
        body: streamed(body),
        broken: None,
    }
    .boxed_unsync()
}

/// How long what came before a break has to be written.
const BREAK_AFTER: Duration = Duration::from_millis(50);

struct Relayed {
    body: Body,
    broken: Option<(BoxError, Pin<Box<Sleep>>)>,
}

impl http_body::Body for Relayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.broken.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Err(error)) => {
                    self.broken = Some((error, Box::pin(tokio::time::sleep(BREAK_AFTER))));
                }
                frame => return Poll::Ready(frame),
            }
        }
        if let Some((_, moment)) = &mut self.broken {
            ready!(moment.as_mut().poll(context));
        }
        // Not every body may be asked again after it has broken.
        self.body = none();
        Poll::Ready(self.broken.take().map(|(error, _)| Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What became of a body that was to be held.
pub enum Held<B> {
    /// All of it, with its trailers.
    Whole(Whole),
    /// More than the cap: what was read, and the rest of it.
    Over(Prefixed<B>),
}

/// A body that has been read to its end.
#[derive(Debug, Clone, Default)]
pub struct Whole {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
}

impl Whole {
    /// The same as a body, to be sent as often as needed.
    #[must_use]
    pub fn body(&self) -> Body {
        if self.bytes.is_empty() && self.trailers.is_none() {
            return none();
        }
        let rest = Empty::<Bytes>::new();
        streamed(Prefixed {
            prefix: self.bytes.clone(),
            rest,
            trailers: self.trailers.clone(),
        })
    }
}

/// Why a body could not be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// It stopped arriving.
    #[error("the body has not arrived within {0:?}")]
    Timeout(Duration),
    /// It broke off.
    #[error("the body broke off: {0}")]
    Broken(BoxError),
}

/// Reads a body of at most `cap` bytes within `timeout`.
///
/// # Errors
/// [`HoldError`] if it does not arrive.
pub async fn hold<B>(body: B, cap: usize, timeout: Duration) -> Result<Held<B>, HoldError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    hold_while(body, |bytes| bytes <= cap, timeout).await
}

/// The same as long as `may` says that so many bytes may be held.
///
/// # Errors
/// [`HoldError`] if it does not arrive.
pub async fn hold_while<B>(
    mut body: B,
    mut may: impl FnMut(usize) -> bool,
    timeout: Duration,
) -> Result<Held<B>, HoldError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let read = async {
        let mut bytes = BytesMut::new();
        let mut trailers = None;
        while let Some(frame) = body.frame().await {
            match frame
                .map_err(|error| HoldError::Broken(error.into()))?
                .into_data()
            {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if !may(bytes.len()) {
                return Ok(Held::Over(Prefixed {
                    prefix: bytes.freeze(),
                    rest: body,
                    trailers,
                }));
            }
        }
        Ok(Held::Whole(Whole {
            bytes: bytes.freeze(),
            trailers,
        }))
    };
    tokio::time::timeout(timeout, read)
        .await
        .unwrap_or(Err(HoldError::Timeout(timeout)))
}

/// Bytes that were read already, then the rest of a body, then trailers that were read already.
pub struct Prefixed<B> {
    prefix: Bytes,
    rest: B,
    trailers: Option<HeaderMap>,
}

impl<B> http_body::Body for Prefixed<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.prefix.has_remaining() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.prefix)))));
        }
        if !self.rest.is_end_stream()
            && let Some(frame) = ready!(Pin::new(&mut self.rest).poll_frame(context))
        {
            return Poll::Ready(Some(frame));
        }
        Poll::Ready(
            self.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.is_empty() && self.trailers.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        behind(self.prefix.len(), &self.rest.size_hint())
    }
}

/// The size of a body of which so many bytes come before what `rest` says.
#[must_use]
pub fn behind(bytes: usize, rest: &SizeHint) -> SizeHint {
    let bytes = bytes as u64;
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower() + bytes);
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper + bytes);
    }
    hint
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;
    use http_body_util::channel::Channel;

    async fn chunks(list: &[&'static str]) -> Channel<Bytes, BoxError> {
        let (mut sender, channel) = Channel::new(list.len());
        for chunk in list {
            sender
                .send_data(Bytes::from_static(chunk.as_bytes()))
                .await
                .unwrap();
        }
        channel
    }

    const SOON: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_small_body_is_held_whole_and_can_be_sent_twice() {
        let Held::Whole(whole) = hold(chunks(&["ab", "cde"]).await, 5, SOON).await.unwrap() else {
            panic!("it fits the cap")
        };
        for _ in 0..2 {
            assert_eq!(whole.body().size_hint().exact(), Some(5));
            assert_eq!(whole.body().collect().await.unwrap().to_bytes(), "abcde");
        }
    }

    #[tokio::test]
    async fn a_large_body_goes_on_where_it_was() {
        let Held::Over(body) = hold(chunks(&["ab", "cde", "fgh"]).await, 4, SOON)
            .await
            .unwrap()
        else {
            panic!("it is over the cap")
        };
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcdefgh");
    }

    #[tokio::test]
    async fn trailers_survive() {
        let (mut sender, channel) = Channel::<Bytes, BoxError>::new(4);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        sender.send_data("data".into()).await.unwrap();
        sender.send_trailers(trailers.clone()).await.unwrap();
        drop(sender);
        let Held::Whole(whole) = hold(channel, 10, SOON).await.unwrap() else {
            panic!("it fits the cap")
        };
        let sent = whole.body().collect().await.unwrap();
        assert_eq!(sent.trailers(), Some(&trailers));
        assert_eq!(sent.to_bytes(), "data");
    }

    #[tokio::test(start_paused = true)]
    async fn a_break_comes_after_what_came_before_it_had_its_time() {
        let (mut sender, channel) = Channel::<Bytes, BoxError>::new(2);
        sender.send_data("half".into()).await.unwrap();
        sender.abort("gone".into());
        let mut body = relayed(channel);
        let half = body.frame().await.unwrap().unwrap();
        assert_eq!(half.into_data().unwrap(), "half");
        let start = tokio::time::Instant::now();
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "gone");
        assert!(start.elapsed() >= BREAK_AFTER);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let (_sender, channel) = Channel::<Bytes, BoxError>::new(1);
        assert!(matches!(
            hold(channel, 10, SOON).await,
            Err(HoldError::Timeout(SOON))
        ));
    }
}
