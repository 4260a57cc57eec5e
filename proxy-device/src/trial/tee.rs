//! An answer on its way to the app, of which a copy is kept as long as it is small.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use sidecod_sidecar::{Body, BoxError};
use tokio::sync::oneshot;

/// The body, and what gives its bytes once it has been sent: none if it broke off, or has more than
/// `cap`.
pub(super) fn tee(body: Body, cap: usize) -> (Body, oneshot::Receiver<Option<Bytes>>) {
    let (done, copy) = oneshot::channel();
    let tee = Tee {
        body,
        kept: Some(BytesMut::new()),
        cap,
        done: Some(done),
    };
    (tee.boxed_unsync(), copy)
}

struct Tee {
    body: Body,
    /// None once it is over the cap.
    kept: Option<BytesMut>,
    cap: usize,
    /// None once it has been told.
    done: Option<oneshot::Sender<Option<Bytes>>>,
}

impl Tee {
    fn keep(&mut self, data: &[u8]) {
        match &mut self.kept {
            Some(kept) if kept.len() + data.len() <= self.cap => kept.extend_from_slice(data),
            _ => self.kept = None,
        }
    }

    fn tell(&mut self, whole: bool) {
        if let Some(done) = self.done.take() {
            let kept = self.kept.take().filter(|_| whole);
            // Nobody may be interested any more.
            let _ = done.send(kept.map(BytesMut::freeze));
        }
    }
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
            }
            Poll::Ready(Some(Err(_))) => self.tell(false),
            Poll::Ready(None) => self.tell(true),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        // Nobody has to ask for a frame after the last.
        let whole = self.body.is_end_stream();
        self.tell(whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::channel::Channel;
    use sidecod_sidecar::body::{full, streamed};

    #[tokio::test]
    async fn the_app_gets_all_of_it_and_the_copy_is_bounded() {
        for (cap, kept) in [(5, Some("abcde")), (4, None)] {
            let (body, copy) = tee(full("abcde"), cap);
            assert_eq!(body.collect().await.unwrap().to_bytes(), "abcde");
            assert_eq!(copy.await.unwrap().as_deref(), kept.map(str::as_bytes));
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_gives_no_copy() {
        let (mut sender, channel) = Channel::<Bytes, BoxError>::new(2);
        sender.send_data("ab".into()).await.unwrap();
        sender.abort("on purpose".into());
        let (body, copy) = tee(streamed(channel), 9);
        assert!(body.collect().await.is_err());
        assert_eq!(copy.await.unwrap(), None);

        let (_sender, channel) = Channel::<Bytes, BoxError>::new(2);
        let (body, copy) = tee(streamed(channel), 9);
        drop(body);
        assert_eq!(copy.await.unwrap(), None);
    }
}
