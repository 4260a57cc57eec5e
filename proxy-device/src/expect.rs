//! `Expect: 100-continue` on a request that is passed on as it arrives.
//!
//! The app holds its body back until it is told to go on, so that a model server may refuse it by the
//! head alone. hyper tells it as soon as the body is read; so the body is not read for a moment, in
//! which the head is with the model server. HTTP/2 as hyper speaks it carries no 100 of the model
//! server, so silence is taken for one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Version, header};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// How long a model server has to refuse before the app is told to send its body.
const MOMENT: Duration = Duration::from_millis(250);

/// Whether the app waits to be told.
pub(crate) fn waits(parts: &Parts) -> bool {
    let expected = parts.headers.get(header::EXPECT).map(HeaderValue::as_bytes);
    parts.version > Version::HTTP_10
        && expected.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// A body that is first read after a moment.
pub(crate) struct Later<B> {
    moment: Option<Pin<Box<Sleep>>>,
    body: B,
}

impl<B> Later<B> {
    pub(crate) fn new(body: B, waits: bool) -> Self {
        Self {
            moment: waits.then(|| Box::pin(sleep(MOMENT))),
            body,
        }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Later<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(moment) = &mut self.moment {
            ready!(moment.as_mut().poll(context));
            self.moment = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
