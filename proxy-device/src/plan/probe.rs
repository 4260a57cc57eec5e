//! Small requests to an edge while no other cross: its profile, and what the link is worth.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use sidecod_sidecar::Body;
use sidecod_sidecar::body::full;
use sidecod_wire::header::{ASK, ASK_PROBE, ASK_PROFILE};
use sidecod_wire::profile::Profile;
use tokio::time::{Instant, sleep, timeout};

use crate::app::App;
use crate::link::Via;
use crate::plan::planner::Planner;
use crate::relay::EdgeTime;

/// Bytes of the two probes: one tells the round trip, both together the bandwidth.
const PROBES: [usize; 2] = [0, 8 << 10];
/// An edge that does not answer a probe in this time is left alone until the next.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the link is idle, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a profile.
const MOST_PROFILE: usize = 256 << 10;

/// Probes the link at the start and whenever nothing has crossed it for `idle`, for as long as the
/// process runs. Zero never probes; the edge's profile is asked for in any case.
pub async fn keep(app: Arc<App>, idle: Duration) {
    loop {
        let pause = if idle.is_zero() { PATIENCE } else { idle / 4 };
        let active = app.bundle.get();
        let Some(planner) = active
            .map(|active| active.planner.clone())
            .filter(|planner| planner.chooses())
        else {
            sleep(LOOK_EVERY).await;
            continue;
        };
        let edge = app.link.likely();
        if !planner.has_profile(&edge) {
            match profile(&app).await {
                Ok(Some((edge, profile))) => planner.edge_profile(&edge, profile),
                Ok(None) => {}
                Err(reason) => tracing::debug!(reason, "no profile of the edge"),
            }
        }
        if !idle.is_zero() && planner.is_idle(&edge, idle) {
            for bytes in PROBES {
                if let Err(reason) = probe(&app, &planner, bytes).await {
                    tracing::debug!(reason, "a probe was not answered");
                    break;
                }
            }
        }
        sleep(pause.max(LOOK_EVERY)).await;
    }
}

/// The profile of the edge that answers, and which edge that is.
async fn profile(app: &Arc<App>) -> Result<Option<(Arc<str>, Profile)>, String> {
    let (edge, answer) = ask(app, ASK_PROFILE, 0).await?;
    if !answer.status().is_success() || answer.status() == http::StatusCode::NO_CONTENT {
        return Ok(None);
    }
    let body = http_body_util::Limited::new(answer.into_body(), MOST_PROFILE);
    let read = timeout(PATIENCE, body.collect()).await;
    let read = read.map_err(|_| "it broke off".to_owned())?;
    let bytes = read.map_err(|error| error.to_string())?.to_bytes();
    let profile = Profile::parse(&bytes).map_err(|error| error.to_string())?;
    Ok(Some((edge, profile)))
}

async fn probe(app: &Arc<App>, planner: &Planner, bytes: usize) -> Result<(), String> {
    let start = Instant::now();
    let (edge, answer) = ask(app, ASK_PROBE, bytes).await?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string());
    }
    let took = start.elapsed();
    planner.crossed(&edge, bytes as u64, took, &EdgeTime::default());
    Ok(())
}

async fn ask(
    app: &Arc<App>,
    what: &'static str,
    bytes: usize,
) -> Result<(Arc<str>, http::Response<hyper::body::Incoming>), String> {
    let body: Body = full(Bytes::from(vec![0; bytes]));
    let request = Request::builder()
        .method(Method::POST)
        .uri("/")
        .header(ASK, what)
        .body(body)
        .map_err(|error| error.to_string())?;
    let sent = app
        .link
        .send(&app.reverse, Box::new(request), Some(PATIENCE));
    let mut answer = sent.await.map_err(|error| error.to_string())?;
    let via = answer.extensions_mut().remove::<Via>();
    let Via(edge) = via.ok_or_else(|| "an answer of no edge".to_owned())?;
    Ok((edge, answer))
}
