//! The plan: which of a route's options a request takes.
//!
//! - [`option`] says what the options are,
//! - [`prepare`] carries one out,
//! - [`estimate`] follows the link, [`times`] the work on both ends,
//! - [`choose`] takes the cheapest, not at every breath of the link,
//! - [`planner`] holds all of it together, [`report`] is what it tells.

pub mod choose;
pub mod estimate;
pub mod line;
pub mod option;
pub mod planner;
pub mod prepare;
pub mod probe;
pub mod report;
mod settings;
mod state;
pub mod times;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use sidecod_sidecar::body::Whole;
use tokio::time::Instant;

use crate::app::App;
use crate::bundle::Active;
use crate::config::Route;
use crate::encode::{Codec, Coded, Crossing, Full, Looked, NotCoded, Pool, content_codings};
use crate::relay::STEPS;
use option::Kind;
use planner::Chosen;
pub use settings::Settings;

/// Bodies of more bytes are looked at on a thread that may be kept busy.
const LARGE: usize = 256 << 10;

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

/// What a request crosses as.
#[derive(Default)]
pub struct Planned {
    /// What crosses in place of its body; none where that crosses as it is.
    pub crossing: Option<Crossing>,
    /// What the device did for it, and how long each step took.
    pub steps: Vec<(&'static str, Duration)>,
    /// The choice behind it, to be told how it went.
    pub chosen: Option<Chosen>,
    /// The inputs, where the device can answer itself if there is no other way.
    pub local: Option<(Arc<Codec>, Arc<Looked>)>,
}

/// Chooses an option for a request whose body is held, and carries it out; `forced` is the
/// name of one that the request wants.
pub async fn plan(
    app: &Arc<App>,
    route: &Route,
    headers: &HeaderMap,
    body: &Whole,
    forced: Option<HeaderValue>,
) -> Planned {
    let began = Instant::now();
    // A frame has no place for them.
    if body.trailers.is_some() {
        count_not_coded(route, "trailers");
        return Planned::default();
    }
    let active = app.bundle.get();
    let Some((active, offer)) =
        active.and_then(|active| Some((active.clone(), active.offer(route)?)))
    else {
        count_not_coded(route, "bundle");
        return Planned::default();
    };
    let looked = {
        let (codec, offer, limit) = (active.codec.clone(), offer.clone(), route.max_body);
        let (headers, bytes) = (headers.clone(), body.bytes.clone());
        let look = move || {
            let limits = codec.limits();
            Looked::new(&headers, bytes, limit, &offer.coding.shape, limits)
        };
        look_at(body.bytes.len(), look).await
    };
    record("locate", began.elapsed());
    let looked = match looked {
        Ok(looked) => looked,
        Err(error) => return as_it_is(route, error.reason(), &error),
    };
    let looked = Arc::new(looked);
    let local = offer
        .is_local()
        .then(|| (active.codec.clone(), looked.clone()));
    Planned {
        local,
        ..take(app, route, &active, looked, forced, began).await
    }
}

/// Answers here, when there is no other way.
///
/// # Errors
/// [`NotCoded`], or that the encoding threads are busy.
pub async fn answer(
    app: &Arc<App>,
    (codec, looked): (Arc<Codec>, Arc<Looked>),
) -> anyhow::Result<Crossing> {
    let run = move || prepare::local(&codec, &looked);
    let Coded { crossing, steps } = app.pool.run(run).await??;
    for (step, time) in steps {
        record(step, time);
    }
    Ok(crossing)
}

async fn take(
    app: &Arc<App>,
    route: &Route,
    active: &Active,
    looked: Arc<Looked>,
    forced: Option<HeaderValue>,
    began: Instant,
) -> Planned {
    let Some(offer) = active.offer(route) else {
        return Planned::default();
    };
    let edge = app.link.likely();
    let forced = forced.and_then(|name| offer.index(name.to_str().ok()?));
    let planner = &active.planner;
    let chosen = planner.choose(&route.name, &edge, &looked, forced, began);
    let Some(chosen) = chosen else {
        return Planned::default();
    };
    if chosen.kind == Kind::Passthrough {
        return Planned {
            chosen: Some(chosen),
            ..Planned::default()
        };
    }
    let waiting = planner.pending(&chosen);
    let coded = {
        let (codec, kind) = (active.codec.clone(), chosen.kind);
        let work = move || {
            let start = Instant::now();
            let done = prepare::prepare(&codec, &offer.coding, kind, &looked);
            (done, start.elapsed())
        };
        app.pool.run(work).await
    };
    drop(waiting);
    match coded {
        Ok((Ok(Coded { crossing, steps }), took)) => {
            for (step, time) in &steps {
                record(step, *time);
            }
            planner.coded(&chosen, took, crossing.bytes().len());
            Planned {
                crossing: Some(crossing),
                steps,
                chosen: Some(chosen),
                local: None,
            }
        }
        Ok((Err(error), _)) => {
            planner.not_coded(&chosen);
            as_it_is(route, error.reason(), &error)
        }
        Err(error @ Full::Queue) => as_it_is(route, "queue_full", &error),
        Err(error @ Full::Failed) => as_it_is(route, "encoder", &error),
    }
}

/// What a body would cross as with the first of the route's options that changes it; none where it
/// would cross as it is. `pool` does the work, and the plan learns nothing of it.
pub async fn other(
    app: &Arc<App>,
    pool: &Pool,
    route: &Route,
    headers: &HeaderMap,
    body: &Whole,
) -> Option<Crossing> {
    if body.trailers.is_some() {
        count_not_coded(route, "trailers");
        return None;
    }
    let active = app.bundle.get();
    let Some((codec, offer)) =
        active.and_then(|active| Some((active.codec.clone(), active.offer(route)?)))
    else {
        count_not_coded(route, "bundle");
        return None;
    };
    let mut kinds = offer.choices.iter().map(|choice| choice.kind);
    let kind = kinds.find(|kind| !matches!(kind, Kind::Passthrough | Kind::Local))?;
    let (headers, bytes, limit) = (headers.clone(), body.bytes.clone(), route.max_body);
    let work = move || {
        let shape = &offer.coding.shape;
        let looked = Looked::new(&headers, bytes, limit, shape, codec.limits())?;
        prepare::prepare(&codec, &offer.coding, kind, &looked)
    };
    match pool.run(work).await {
        Ok(Ok(done)) => return Some(done.crossing),
        Ok(Err(error)) => as_it_is(route, error.reason(), &error),
        Err(error @ Full::Queue) => as_it_is(route, "queue_full", &error),
        Err(error @ Full::Failed) => as_it_is(route, "encoder", &error),
    };
    None
}

async fn look_at(
    bytes: usize,
    look: impl FnOnce() -> Result<Looked, NotCoded> + Send + 'static,
) -> Result<Looked, NotCoded> {
    if bytes <= LARGE {
        return look();
    }
    let looked = tokio::task::spawn_blocking(look).await;
    looked.unwrap_or(Err(NotCoded::NoInput))
}

fn as_it_is(route: &Route, reason: &'static str, error: &dyn std::error::Error) -> Planned {
    tracing::debug!(route = route.name, reason, %error, "crosses as it is");
    count_not_coded(route, reason);
    Planned::default()
}

fn record(step: &'static str, took: Duration) {
    STEPS.get(step).record(took);
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
