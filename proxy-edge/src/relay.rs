//! Headers on their way from the device to the model server and back (RFC 9110, 7.6).

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, TE};
use http::request::Parts;
use http::{Response, Uri, Version};
use hyper::body::Incoming;
use metrics::Histogram;
use sidecod_sidecar::metrics::Handles;
use sidecod_sidecar::{Body, body, hop};
use sidecod_wire::header::{HTTP2, NO_HOST, PREFIX, PROTOCOL};

use crate::point::Answered;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

static STEPS: LazyLock<Handles<Histogram>> = LazyLock::new(|| {
    Handles::new(|step| metrics::histogram!("sidecod_edge_step_seconds", "step" => step))
});

/// What each step of a request took.
#[derive(Debug, Default)]
pub struct Steps {
    took: Vec<(&'static str, Duration)>,
    restored: Option<usize>,
}

impl From<Steps> for Vec<(&'static str, Duration)> {
    fn from(steps: Steps) -> Self {
        steps.took
    }
}

impl Steps {
    /// Notes a step, for the device and in the metrics.
    pub fn note(&mut self, step: &'static str, took: Duration) {
        STEPS.get(step).record(took);
        self.took.push((step, took));
    }

    /// Notes the bytes of a body that was restored from a frame.
    pub fn note_restored(&mut self, bytes: usize) {
        self.restored = Some(bytes);
    }

    /// The bytes of such a body.
    #[must_use]
    pub fn restored(&self) -> Option<usize> {
        self.restored
    }

    /// The field `Server-Timing`.
    fn tell(&self, headers: &mut HeaderMap) {
        if let Ok(mut value) = HeaderValue::from_str(&self.value()) {
            // Of no use to the answers that follow: HTTP/2 is not to keep it for them.
            value.set_sensitive(true);
            headers.append(SERVER_TIMING, value);
        }
    }

    /// Its value: durations in milliseconds.
    fn value(&self) -> String {
        let mut value = String::new();
        for (step, took) in &self.took {
            let between = if value.is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = write!(value, "{between}{step};dur={:.1}", took.as_secs_f64() * 1e3);
        }
        value
    }
}

/// The version of HTTP in which the device wants the model server called.
#[must_use]
pub fn upstream_version(headers: &HeaderMap) -> Version {
    if headers.get(PROTOCOL).is_some_and(|value| value == HTTP2) {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    }
}

/// Makes the head of a device's request that of one for the model server.
pub fn to_upstream(parts: &mut Parts) {
    let headers = &mut parts.headers;
    if headers.contains_key(NO_HOST) {
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        (uri.scheme, uri.authority) = (None, None);
        parts.uri = Uri::from_parts(uri).unwrap_or_default();
    }
    hop::remove_hop_by_hop(headers);
    hop::remove_prefixed(headers, PREFIX);
    join_cookies(headers);
    if headers.contains_key(TE) {
        // TE is hop-by-hop, which it has to say (RFC 9110, 10.1.4).
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// HTTP/2 may split the one cookie header that HTTP/1.1 knows (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// Makes the model server's answer one for the device. Its body, trailers included, is passed on as
/// it comes; `guard` lives as long as it does.
pub fn to_device(
    answer: Response<Incoming>,
    steps: &Steps,
    guard: impl Send + 'static,
) -> Response<Body> {
    let (mut parts, incoming) = answer.into_parts();
    hop::remove_hop_by_hop(&mut parts.headers);
    hop::remove_prefixed(&mut parts.headers, PREFIX);
    steps.tell(&mut parts.headers);
    parts.version = Version::HTTP_2;
    Response::from_parts(parts, body::guarded(body::relayed(incoming), guard))
}

/// An answer of this sidecar's own for the device; `guard` lives as long as its body does.
pub fn own(answered: Answered, steps: &Steps, guard: impl Send + 'static) -> Response<Body> {
    let mut answer = Response::new(body::guarded(body::full(answered.body), guard));
    let headers = answer.headers_mut();
    if let Ok(value) = HeaderValue::try_from(answered.content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    steps.tell(headers);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn the_headers_of_a_request() {
        let (mut parts, ()) = Request::get("http://edge:7100/a?b")
            .header(NO_HOST, "1")
            .body(())
            .unwrap()
            .into_parts();
        let headers = &mut parts.headers;
        for (name, value) in [
            ("te", "trailers"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("sidecod-token", "secret"),
            ("sidecod-upstream", "default"),
            ("x-own", "kept"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        to_upstream(&mut parts);
        assert_eq!(parts.uri, "/a?b");
        let mut expected = HeaderMap::new();
        for (name, value) in [
            ("te", "trailers"),
            ("connection", "te"),
            ("cookie", "a=1; b=2"),
            ("x-own", "kept"),
        ] {
            expected.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(parts.headers, expected);
    }

    #[test]
    fn steps_are_milliseconds() {
        let mut steps = Steps::default();
        steps.note("queue", Duration::from_micros(1240));
        steps.note("upstream", Duration::from_secs(2));
        assert_eq!(steps.value(), "queue;dur=1.2, upstream;dur=2000.0");
    }
}
