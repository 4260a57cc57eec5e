//! One line for each request, when its answer has been sent or given up, and one span where a collector
//! is configured. Where both are off nothing is counted, made or copied.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tracing::Level;

use crate::body::{Body, BoxError};
use crate::otlp::{self, Place, Spans, Told};
use crate::request_id::{self, RequestId};

/// Who is told of requests.
#[derive(Clone, Default)]
pub struct Access {
    /// The level of the line; none writes none.
    pub level: Option<Level>,
    /// What takes spans.
    pub spans: Option<Spans>,
}

/// The line of a request; empty where nobody is told.
pub struct Line(Option<Box<Open>>);

struct Open {
    level: Option<Level>,
    spans: Option<(Spans, Place)>,
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
    /// Begins the line of a request. The id is the request's own, or made.
    #[must_use]
    pub fn begin<B>(access: &Access, request: &Request<B>) -> Self {
        if access.level.is_none() && access.spans.is_none() {
            return Self(None);
        }
        let headers = request.headers();
        let spans = access.spans.clone().map(|spans| {
            let place = spans.place(headers);
            (spans, place)
        });
        let trace_id = match &spans {
            Some((_, place)) => Some(place.trace().to_owned()),
            None => otlp::parent(headers).map(|(trace, _, _)| trace.to_owned()),
        };
        Self(Some(Box::new(Open {
            level: access.level,
            spans,
            begin: Instant::now(),
            id: request_id::of(headers).unwrap_or_default(),
            trace_id,
            method: request.method().clone(),
            // Secrets stand in queries.
            path: request.uri().path().to_owned(),
            received: Arc::default(),
        })))
    }

    /// Where a collector is configured: the place in its trace of what the request leads to.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.0.as_ref()?.spans.as_ref().map(|(_, place)| place)
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

impl Logged {
    fn write(&self, level: Level) {
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
            level,
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

    fn tell(&self, spans: &Spans, place: &Place) {
        let (open, known) = (&self.open, &self.known);
        let received = open.received.load(Ordering::Relaxed);
        // Names of OpenTelemetry where it has one.
        let mut attributes: Vec<_> = [
            ("http.request.method", json!(open.method.as_str())),
            ("url.path", json!(open.path)),
            ("http.response.status_code", json!(self.status)),
            ("http.request.body.size", json!(received)),
            ("http.response.body.size", json!(self.answered)),
            ("sidecod.request_id", json!(open.id.as_str())),
            ("sidecod.route", json!(known.route)),
            ("sidecod.outcome", json!(known.outcome)),
            ("sidecod.head_ms", json!(ms(self.head))),
        ]
        .map(|(name, value): (&str, Value)| (name.to_owned(), value))
        .into();
        if let Some(sent) = known.sent {
            attributes.push(("sidecod.sent_bytes".to_owned(), json!(sent)));
        }
        let steps = known
            .steps
            .iter()
            .map(|(step, time)| (format!("sidecod.{step}_ms"), json!(ms(*time))));
        attributes.extend(steps);
        spans.tell(Told {
            place,
            name: &known.route,
            took: open.begin.elapsed(),
            failed: self.status >= 500,
            attributes,
        });
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

impl Drop for Logged {
    fn drop(&mut self) {
        if let Some(level) = self.open.level {
            self.write(level);
        }
        if let Some((spans, place)) = &self.open.spans {
            self.tell(spans, place);
        }
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
        let access = Access {
            level: Some(Level::DEBUG),
            spans: None,
        };
        let line = Line::begin(&access, &request);
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
        let json: Value = serde_json::from_str(&text).unwrap();
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
        let line = Line::begin(&Access::default(), &Request::new(()));
        assert!(line.id().is_none());
        let known = || panic!("nobody asks");
        let answer = line.end(known, Response::new(full("abc")));
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "abc"
        );
    }
}
