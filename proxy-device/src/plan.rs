//! The plan: whether a request's inputs cross as codes or the body crosses as it is.

use std::sync::Arc;

use http::{HeaderMap, header};
use sidecod_sidecar::body::Whole;

use crate::app::App;
use crate::config::Route;
use crate::encode::{Coded, Full, NotCoded};
use crate::route;

/// Headers that say something of the body's bytes which a frame would make untrue, or that ask for
/// a part of something.
const FROZEN: [&str; 6] = [
    "content-encoding",
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
    "content-range",
];

/// Whether the headers let the body be replaced.
#[must_use]
pub fn may_offload(headers: &HeaderMap) -> bool {
    FROZEN.iter().all(|name| !headers.contains_key(*name)) && !headers.contains_key(header::RANGE)
}

/// The frame that a body crosses as, or none where it crosses as it is.
pub async fn frame(
    app: &Arc<App>,
    route: &Route,
    headers: &HeaderMap,
    body: &Whole,
) -> Option<Coded> {
    // The frame has no place for them.
    if body.trailers.is_some() {
        count_not_coded(route, "trailers");
        return None;
    }
    let (quality, max_side) = (app.quality(route), route.max_side);
    let content_type = route::content_type(headers).map(str::to_owned);
    let bytes = body.bytes.clone();
    let encoder = app.codec.clone();
    let coded = app
        .pool
        .run(move || encoder.code(content_type.as_deref(), &bytes, quality, max_side))
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
    }
}
