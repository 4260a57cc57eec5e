//! Spans for an OpenTelemetry collector: OTLP over HTTP in JSON (`/v1/traces`), from a bounded queue.
//! What finds no place in it, or no collector, is dropped: no request waits for a span.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::body::full;
use crate::connect::Connector;
use crate::own::Own;
use crate::request_id::random;
use crate::upstream::{BaseUrl, Upstream};

/// The field of W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Spans that wait to be sent.
const QUEUE: usize = 2048;
/// Spans in one request.
const BATCH: usize = 256;
/// Longest time that a span waits for others.
const EVERY: Duration = Duration::from_secs(2);
/// For the collector to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// The collector's base URL, `http://host:4318`.
    #[schemars(with = "String", example = "http://127.0.0.1:4318")]
    pub url: BaseUrl,
    /// Share of the requests without a trace of their own for which one is begun. A request that
    /// comes with a trace is of it, and sampled as that says.
    #[serde(default = "all")]
    pub share: f64,
}

fn all() -> f64 {
    1.0
}

/// Takes spans to the collector.
#[derive(Clone)]
pub struct Spans {
    queue: mpsc::Sender<Value>,
    dropped: Arc<AtomicU64>,
    share: f64,
}

/// Where a request stands in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    trace: String,
    span: String,
    parent: Option<String>,
    sampled: bool,
}

impl Place {
    /// The value of `traceparent` for what this request leads to.
    #[must_use]
    pub fn traceparent(&self) -> HeaderValue {
        let flags = u8::from(self.sampled);
        let value = format!("00-{}-{}-{flags:02x}", self.trace, self.span);
        HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(""))
    }

    /// The trace's id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace(&self) -> &str {
        &self.trace
    }
}

/// Trace, span and flags of a `traceparent` (W3C Trace Context, 3.2).
#[must_use]
pub fn parent(headers: &HeaderMap) -> Option<(&str, &str, u8)> {
    let value = headers.get(TRACEPARENT)?.to_str().ok()?;
    let mut fields = value.split('-');
    let (version, trace, span, flags) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let good = hex(version, 2)
        && version != "ff"
        && (version != "00" || fields.next().is_none())
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && [trace, span].iter().all(|id| id.bytes().any(|b| b != b'0'));
    good.then_some((trace, span, u8::from_str_radix(flags, 16).ok()?))
}

/// What a span says.
pub(crate) struct Told<'s> {
    pub place: &'s Place,
    pub name: &'s str,
    pub took: Duration,
    /// Whether the request came to a sidecar's error.
    pub failed: bool,
    pub attributes: Vec<(String, Value)>,
}

impl Spans {
    /// Begins to take spans of a program to a collector. Call it inside a runtime.
    #[must_use]
    pub fn start(otlp: &Otlp, program: &'static str) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let collector = Upstream::new(otlp.url.clone(), Connector::new(PATIENCE, Own::default()));
        tokio::spawn(run(waiting, collector, program, dropped.clone()));
        Self {
            queue,
            dropped,
            share: otlp.share,
        }
    }

    /// The place of a request.
    #[must_use]
    pub fn place(&self, headers: &HeaderMap) -> Place {
        let span = format!("{:016x}", random().max(1));
        match parent(headers) {
            Some((trace, parent, flags)) => Place {
                trace: trace.to_owned(),
                span,
                parent: Some(parent.to_owned()),
                sampled: flags & 1 == 1,
            },
            None => Place {
                trace: format!("{:016x}{:016x}", random().max(1), random()),
                span,
                parent: None,
                sampled: random() as f64 / u64::MAX as f64 <= self.share,
            },
        }
    }

    pub(crate) fn tell(&self, told: Told) {
        if told.place.sampled && self.queue.try_send(span(told, SystemTime::now())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A span in the JSON of OTLP, where ids are hexadecimal and 64-bit integers are strings.
fn span(told: Told, end: SystemTime) -> Value {
    let nanos = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos().to_string()
    };
    let attributes: Vec<Value> = told
        .attributes
        .into_iter()
        .map(|(key, value)| {
            let value = match value {
                Value::String(text) => json!({ "stringValue": text }),
                Value::Bool(flag) => json!({ "boolValue": flag }),
                Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
                other => json!({ "intValue": other.to_string() }),
            };
            json!({ "key": key, "value": value })
        })
        .collect();
    json!({
        "traceId": told.place.trace,
        "spanId": told.place.span,
        "parentSpanId": told.place.parent.as_deref().unwrap_or(""),
        "name": told.name,
        // A server's.
        "kind": 2,
        "startTimeUnixNano": nanos(end.checked_sub(told.took).unwrap_or(end)),
        "endTimeUnixNano": nanos(end),
        "attributes": attributes,
        "status": if told.failed { json!({ "code": 2 }) } else { json!({}) },
    })
}

async fn run(
    mut waiting: mpsc::Receiver<Value>,
    collector: Upstream,
    program: &'static str,
    dropped: Arc<AtomicU64>,
) {
    let mut failing = false;
    let mut spans = Vec::new();
    while waiting.recv_many(&mut spans, 1).await > 0 {
        let more = async {
            while spans.len() < BATCH && waiting.recv_many(&mut spans, BATCH).await > 0 {}
        };
        let _ = tokio::time::timeout(EVERY, more).await;
        let count = spans.len() as u64;
        let failed = send(&collector, program, std::mem::take(&mut spans))
            .await
            .err();
        if let Some(reason) = &failed {
            dropped.fetch_add(count, Ordering::Relaxed);
            if !failing {
                tracing::warn!(
                    reason,
                    "the collector takes no spans; they are dropped until it does"
                );
            }
        } else if dropped.load(Ordering::Relaxed) > 0 {
            let dropped = dropped.swap(0, Ordering::Relaxed);
            tracing::warn!(dropped, "spans were dropped");
        }
        failing = failed.is_some();
    }
}

async fn send(collector: &Upstream, program: &str, spans: Vec<Value>) -> Result<(), String> {
    let attribute =
        |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let resource = json!({ "attributes": [
        attribute("service.name", program),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
    ]});
    let scope = json!({ "name": "sidecod" });
    let body = json!({ "resourceSpans": [{
        "resource": resource,
        "scopeSpans": [{ "scope": scope, "spans": spans }],
    }]});
    let json = HeaderValue::from_static("application/json");
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/traces")
        .header(CONTENT_TYPE, json)
        .body(full(body.to_string()))
        .map_err(|error| error.to_string())?;
    let answer = collector.send(request, Some(PATIENCE)).await;
    let status = answer.map_err(|error| error.to_string())?.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("it answers {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, value.parse().unwrap());
        headers
    }

    #[test]
    fn parents_are_read_as_the_standard_says() {
        let long = format!("{PARENT}-x");
        let newer = long.replacen("00", "01", 1);
        for (value, good) in [
            (PARENT, true),
            (&long, false),
            (&newer, true),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                false,
            ),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
                false,
            ),
            ("x", false),
        ] {
            assert_eq!(parent(&headers(value)).is_some(), good, "{value}");
        }
    }

    #[tokio::test]
    async fn a_request_keeps_its_trace_or_begins_one() {
        let url = serde_json::from_value(json!("http://127.0.0.1:9")).unwrap();
        let spans = Spans::start(&Otlp { url, share: 1.0 }, "test");
        let place = spans.place(&headers(PARENT));
        assert_eq!(place.trace(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(place.parent.as_deref(), Some("00f067aa0ba902b7"));
        let child = headers(place.traceparent().to_str().unwrap());
        let (trace, span, flags) = parent(&child).unwrap();
        assert_eq!((trace, span, flags), (place.trace(), &place.span[..], 1));
        let new = spans.place(&HeaderMap::new());
        assert!(new.parent.is_none() && new.sampled && new.trace != place.trace);
        assert!(!spans.place(&headers(&PARENT.replace("-01", "-00"))).sampled);
    }

    #[test]
    fn a_span_is_what_a_collector_reads() {
        let place = Place {
            trace: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
            span: "00f067aa0ba902b7".to_owned(),
            parent: None,
            sampled: true,
        };
        let told = Told {
            place: &place,
            name: "classify",
            took: Duration::from_millis(1500),
            failed: true,
            attributes: [
                ("url.path", json!("/a")),
                ("n", json!(7)),
                ("t", json!(0.5)),
            ]
            .map(|(name, value): (&str, Value)| (name.to_owned(), value))
            .into(),
        };
        let end = UNIX_EPOCH + Duration::from_secs(10);
        assert_eq!(
            span(told, end),
            json!({
                "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                "spanId": "00f067aa0ba902b7",
                "parentSpanId": "",
                "name": "classify",
                "kind": 2,
                "startTimeUnixNano": "8500000000",
                "endTimeUnixNano": "10000000000",
                "attributes": [
                    { "key": "url.path", "value": { "stringValue": "/a" } },
                    { "key": "n", "value": { "intValue": "7" } },
                    { "key": "t", "value": { "doubleValue": 0.5 } },
                ],
                "status": { "code": 2 },
            })
        );
    }
}
