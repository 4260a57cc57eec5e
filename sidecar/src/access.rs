//! One line for each request, when its answer has been sent or given up. Where it is off nothing is
//! counted, made or copied.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tracing::Level;

use crate::body::{Body, BoxError};
use crate::request_id::{self, RequestId};

/// The line of a request; empty where none is written.
pub struct Line(Option<Box<Open>>);

struct Open {
    level: Level,
    begin: Instant,
    id: RequestId,
    trace_id: Option<String>,
    method: Method,
    path: String,
    received: Arc<AtomicU64>,
}

/// What is known of a request when its answer begins.
#[derive(Debug, Default)]
pub struct Known {
    /// The route, or the upstream.
    pub route: String,
    /// What came of it, as the metric names it.
    pub outcome: &'static str,
    /// Bytes of the body that went on, where that is not the one that came.
    pub sent: Option<usize>,
    /// What took how long, by name.
    pub steps: Vec<(&'static str, Duration)>,
}

impl Line {
    /// Begins the line of a request, at this level; none writes no line. The id is the request's
    /// own, or made.
    #[must_use]
    pub fn begin<B>(level: Option<Level>, request: &Request<B>) -> Self {
        Self(level.map(|level| {
            Box::new(Open {
                level,
                begin: Instant::now(),
                id: request_id::of(request.headers()).unwrap_or_else(RequestId::new),
                trace_id: trace_id(request.headers()),
                method: request.method().clone(),
                // Secrets stand in queries.
                path: request.uri().path().to_owned(),
                received: Arc::default(),
            })
        }))
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        self.0.as_ref().map(|open| &open.id)
    }

    /// Counts the bytes of the request's body.
    pub fn count<B>(&self, body: B) -> Counted<B> {
        Counted {
            body,
            bytes: self.0.as_ref().map(|open| open.received.clone()),
        }
    }

    /// Has the line written when the answer's body is gone.
    #[must_use]
    pub fn end(self, known: impl FnOnce() -> Known, answer: Response<Body>) -> Response<Body> {
        let Some(open) = self.0 else {
            return answer;
        };
        let head = open.begin.elapsed();
        let status = answer.status().as_u16();
        let known = known();
        answer.map(|body| {
            let logged = Logged {
                body,
                open,
                known,
                status,
                head,
                answered: 0,
                whole: false,
            };
            logged.boxed_unsync()
        })
    }
}

/// The trace that a request belongs to (W3C Trace Context, 3.2).
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let id = value.split('-').nth(1)?;
    let good = id.len() == 32
        && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && id.bytes().any(|byte| byte != b'0');
    good.then(|| id.to_owned())
}

/// A body whose bytes are counted, if anybody wants to know.
pub struct Counted<B> {
    body: B,
    bytes: Option<Arc<AtomicU64>>,
}

impl<B> http_body::Body for Counted<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let (Some(bytes), Poll::Ready(Some(Ok(frame)))) = (&self.bytes, &frame) {
            let more = frame.data_ref().map_or(0, Bytes::len);
            bytes.fetch_add(more as u64, Ordering::Relaxed);
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

/// The body of an answer, with the line that is written when it is gone.
struct Logged {
    body: Body,
    open: Box<Open>,
    known: Known,
    status: u16,
    head: Duration,
    answered: u64,
    whole: bool,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.answered += frame.data_ref().map_or(0, Bytes::len) as u64;
            }
            Poll::Ready(None) => self.whole = true,
            _ => {}
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

/// An event whose level is known only when the program runs.
macro_rules! event_at {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            Level::ERROR => tracing::error!(target: "access", $($fields)*),
            Level::WARN => tracing::warn!(target: "access", $($fields)*),
            Level::INFO => tracing::info!(target: "access", $($fields)*),
            Level::DEBUG => tracing::debug!(target: "access", $($fields)*),
            Level::TRACE => tracing::trace!(target: "access", $($fields)*),
        }
    };
}

impl Drop for Logged {
    fn drop(&mut self) {
        let ms = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
        let (open, known) = (&self.open, &self.known);
        let whole = self.whole || self.body.is_end_stream();
        let received = open.received.load(Ordering::Relaxed);
        let steps = known
            .steps
            .iter()
            .map(|(step, time)| format!("{step}={:.1}", ms(*time)))
            .collect::<Vec<_>>()
            .join(" ");
        event_at!(
            open.level,
            request_id = open.id.as_str(),
            trace_id = open.trace_id,
            method = open.method.as_str(),
            path = open.path,
            route = known.route,
            outcome = known.outcome,
            status = self.status,
            received_bytes = received,
            sent_bytes = known.sent.map_or(received, |bytes| bytes as u64),
            answered_bytes = self.answered,
            whole,
            head_ms = ms(self.head),
            total_ms = ms(open.begin.elapsed()),
            steps_ms = steps,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::full;
    use std::io;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[tokio::test]
    async fn the_line_says_what_became_of_a_request() {
        let written = Written::default();
        let to = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(Level::DEBUG)
            .with_writer(move || to.clone())
            .finish();
        let _here = tracing::subscriber::set_default(subscriber);
        let request = Request::post("/a/b?secret=1")
            .header("x-request-id", "mine")
            .header("traceparent", TRACE)
            .body(full("12345"))
            .unwrap();
        let line = Line::begin(Some(Level::DEBUG), &request);
        assert_eq!(line.id().map(RequestId::as_str), Some("mine"));
        line.count(request.into_body()).collect().await.unwrap();
        let known = || Known {
            route: "photos".to_owned(),
            outcome: "code",
            sent: Some(3),
            steps: vec![("encode", Duration::from_micros(1250))],
        };
        let answer = line.end(known, Response::new(full("abc")));
        assert!(written.0.lock().unwrap().is_empty());
        answer.into_body().collect().await.unwrap();
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (field, value) in [
            ("level", "\"DEBUG\""),
            ("target", "\"access\""),
            ("request_id", "\"mine\""),
            ("trace_id", "\"4bf92f3577b34da6a3ce929d0e0e4736\""),
            ("path", "\"/a/b\""),
            ("route", "\"photos\""),
            ("outcome", "\"code\""),
            ("status", "200"),
            ("received_bytes", "5"),
            ("sent_bytes", "3"),
            ("answered_bytes", "3"),
            ("whole", "true"),
            ("steps_ms", "\"encode=1.3\""),
        ] {
            assert_eq!(json[field].to_string(), value, "{field} in {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn off_writes_nothing_and_makes_no_id() {
        let line = Line::begin(None, &Request::new(()));
        assert!(line.id().is_none());
        let known = || panic!("nobody asks");
        let answer = line.end(known, Response::new(full("abc")));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "abc");
    }

    #[test]
    fn only_good_trace_ids_are_told() {
        for (value, good) in [
            (TRACE, true),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("x", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", value.parse().unwrap());
            assert_eq!(trace_id(&headers).is_some(), good, "{value}");
        }
    }
}
