//! The plan: whether a request's inputs cross as codes or the body crosses as it is.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use sidecod_sidecar::body::Whole;
use sidecod_wire::header::JSON_LENGTH;
use sidecod_wire::slot;

use crate::app::App;
use crate::config::Route;
use crate::encode::{Codec, Coded, Coding, ContentCodings, Full, NotCoded, Pool};
use crate::route;

/// Headers that say something of the body's bytes which a frame would make untrue, or that ask for
/// a part of something.
const FROZEN: [&str; 5] = [
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
    "content-range",
];

/// Whether the headers let the body be replaced.
#[must_use]
pub fn may_offload(headers: &HeaderMap) -> bool {
    FROZEN.iter().all(|name| !headers.contains_key(*name))
        && !headers.contains_key(header::RANGE)
        && content_codings(headers).is_some()
}

/// The content codings of the body; none where one is not known here.
fn content_codings(headers: &HeaderMap) -> Option<ContentCodings> {
    let values = headers.get_all(header::CONTENT_ENCODING);
    let values: Result<Vec<_>, _> = values.iter().map(HeaderValue::to_str).collect();
    ContentCodings::parse(&values.ok()?.join(","))
}

/// The length of the JSON that the Open Inference Protocol puts before binary data.
fn json_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(JSON_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// The frame that a body crosses as, or none where it crosses as it is. `pool` runs the encoder.
pub async fn frame(
    app: &Arc<App>,
    pool: &Pool,
    route: &Route,
    headers: &HeaderMap,
    body: &Whole,
) -> Option<Coded> {
    // The frame has no place for them.
    if body.trailers.is_some() {
        count_not_coded(route, "trailers");
        return None;
    }
    let coding = app.coding(route)?;
    let (headers, bytes, limit) = (headers.clone(), body.bytes.clone(), route.max_body);
    let encoder = app.codec.clone();
    let coded = pool
        .run(move || code(&encoder, &coding, &headers, &bytes, limit))
        .await;
    let (reason, error): (_, Box<dyn std::error::Error>) = match coded {
        Ok(Ok(coded)) => {
            for (step, time) in coded.steps {
                metrics::histogram!("sidecod_device_step_seconds", "step" => step).record(time);
            }
            return Some(coded);
        }
        Ok(Err(error)) => (NotCoded::reason(&error), Box::new(error)),
        Err(error @ Full::Queue) => ("queue_full", Box::new(error)),
        Err(error @ Full::Failed) => ("encoder", Box::new(error)),
    };
    tracing::debug!(route = route.name, reason, %error, "crosses as it is");
    count_not_coded(route, reason);
    None
}

/// Makes the frame for a body that [`may_offload`] lets be replaced; `limit` bounds its bytes without
/// content codings.
///
/// # Errors
/// [`NotCoded`].
pub fn code(
    encoder: &Codec,
    coding: &Coding,
    headers: &HeaderMap,
    body: &[u8],
    limit: usize,
) -> Result<Coded, NotCoded> {
    let body = content_codings(headers)
        .unwrap_or_default()
        .decode(body, limit)?;
    let request = slot::Request {
        body: &body,
        content_type: route::content_type(headers),
        json_length: json_length(headers),
    };
    encoder.code(&request, coding)
}

/// Counts a request of a route that crosses as it is, by one word that says why.
pub fn count_not_coded(route: &Route, reason: &'static str) {
    let route = route.name.clone();
    metrics::counter!("sidecod_device_not_coded_total", "route" => route, "reason" => reason)
        .increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_their_headers_vouch_for_stay_as_they_are() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "image/jpeg".parse().unwrap());
        assert!(may_offload(&headers));
        for name in ["content-encoding", "content-digest", "range"] {
            let mut headers = headers.clone();
            headers.insert(name, "x".parse().unwrap());
            assert!(!may_offload(&headers), "{name}");
        }
        headers.insert("content-encoding", "gzip".parse().unwrap());
        assert!(may_offload(&headers));
    }
}
