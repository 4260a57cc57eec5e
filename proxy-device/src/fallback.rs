//! The ladder: code, then the original body through the edge, then the model server directly, then
//! the model on the device, then a clear error. A request is sent again only where that is safe, and never after an answer began.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;
use sidecod_sidecar::Body;
use sidecod_sidecar::body::{Whole, full};
use sidecod_sidecar::hop::remove_prefixed;
use sidecod_sidecar::problem::problem;
use sidecod_sidecar::upstream::UpstreamError;
use sidecod_wire::frame::CONTENT_TYPE;
use sidecod_wire::header::{JSON_LENGTH, PREFIX};
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::encode::Crossing;
use crate::ingress::count_loop;
use crate::ingress::destination::Destination;
use crate::link::LinkError;
use crate::plan::planner::Chosen;
use crate::plan::{self, Planned};
use crate::relay;

/// How a request got its answer, as the metric names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its inputs crossed as codes.
    Code,
    /// Its inputs crossed as smaller files of a classical codec.
    Classical,
    /// It crossed as it is, as planned.
    Passthrough,
    /// It crossed as it is after its code had failed.
    FallbackEdge,
    /// It went to the model server without the edge.
    FallbackDirect,
    /// The model ran on the device, as planned.
    Local,
    /// The model ran on the device because nothing else answered.
    FallbackLocal,
    /// It went to a destination that the edge is not asked for.
    Elsewhere,
    /// It got an error of a sidecar.
    Error,
}

impl Outcome {
    /// Its name in the metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Classical => "classical",
            Self::Passthrough => "passthrough",
            Self::FallbackEdge => "fallback_edge",
            Self::FallbackDirect => "fallback_direct",
            Self::Local => "local",
            Self::FallbackLocal => "fallback_local",
            Self::Elsewhere => "elsewhere",
            Self::Error => "error",
        }
    }
}

/// What may be done for a request whose body is held.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// When the answer must have begun.
    pub deadline: Instant,
    /// Whether the model server may be asked twice.
    pub idempotent: bool,
}

/// What an attempt came to.
enum Attempt {
    /// The answer of the model server, or an error that no further step can mend.
    Answer(Outcome, Response<Body>),
    /// Nothing that the app could use.
    Failed(Failure),
}

/// Why an attempt failed, for the next step.
struct Failure {
    /// Whether the model server may have got the request.
    sent: bool,
    /// Whether the edge could do better with the original body.
    edge_again: bool,
    /// What the app is told if no step helps.
    problem: Response<Body>,
}

/// Sends a request whose body is held, step by step down the ladder.
pub async fn send(
    app: &Arc<App>,
    destination: &Destination,
    parts: &Parts,
    body: &Whole,
    planned: Planned,
    terms: Terms,
) -> (Outcome, Response<Body>) {
    let Planned {
        crossing,
        mut chosen,
        local,
        ..
    } = planned;
    if let Some(Crossing::Answer { content_type, body }) = crossing {
        return (Outcome::Local, own(content_type, body));
    }
    let through_edge = if crossing.is_some() {
        Outcome::FallbackEdge
    } else {
        Outcome::Passthrough
    };
    let mut failure = None;
    // A code may take half of the time, so that a decoder that is too slow costs no request.
    if let Some(crossing) = crossing {
        let outcome = outcome_of(&crossing);
        let request = crossed(parts, crossing);
        let (chosen, limit) = (chosen.take(), terms.rest() / 2);
        match edge(app, destination, outcome, request, chosen.as_ref(), limit).await {
            Attempt::Answer(outcome, answer) => return (outcome, answer),
            Attempt::Failed(failed) => failure = Some(failed),
        }
    }
    let may_go_on = |failure: &Option<Failure>| {
        failure
            .as_ref()
            .is_none_or(|failed| !failed.sent || terms.idempotent)
    };
    if may_go_on(&failure) && failure.as_ref().is_none_or(|failed| failed.edge_again) {
        let request = original(parts, body);
        let (chosen, limit) = (chosen.as_ref(), terms.rest());
        match edge(app, destination, through_edge, request, chosen, limit).await {
            Attempt::Answer(outcome, answer) => return (outcome, answer),
            Attempt::Failed(failed) => failure = Some(failed),
        }
    }
    if may_go_on(&failure) && destination.direct.is_some() && !terms.rest().is_zero() {
        match direct(destination, original(parts, body), Some(terms.rest())).await {
            Attempt::Answer(outcome, answer) => return (outcome, answer),
            Attempt::Failed(failed) => failure = Some(failed),
        }
    }
    if let Some(local) = local {
        match plan::answer(app, local).await {
            Ok(Crossing::Answer { content_type, body }) => {
                return (Outcome::FallbackLocal, own(content_type, body));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the local model gives no answer"),
        }
    }
    let nothing = || unreachable("no way to the model server");
    (
        Outcome::Error,
        failure.map_or_else(nothing, |failed| failed.problem),
    )
}

/// Sends a request whose body still arrives: once, and past the edge only if nothing of it has been
/// sent. Its answer may take as long as it takes: nobody but the app knows how long the body is.
pub async fn send_streamed(
    app: &Arc<App>,
    destination: &Destination,
    request: Request<Body>,
) -> (Outcome, Response<Body>) {
    if !destination.through_edge() {
        return match direct(destination, request, None).await {
            Attempt::Answer(_, answer) => (Outcome::Elsewhere, answer),
            Attempt::Failed(failed) => (Outcome::Error, failed.problem),
        };
    }
    match app.link.send(destination, request).await {
        Ok(answer) => (
            Outcome::Passthrough,
            relay::from_edge(answer, app.keep_server_timing).answer,
        ),
        Err(LinkError::Unreachable { request, .. }) if destination.direct.is_some() => {
            match direct(destination, *request, None).await {
                Attempt::Answer(outcome, answer) => (outcome, answer),
                Attempt::Failed(failed) => (Outcome::Error, failed.problem),
            }
        }
        Err(error) => (Outcome::Error, unreachable(&error.to_string())),
    }
}

/// Asks once, through the edge and without another step, for an answer that no app waits for: that of
/// the model server, or none.
pub(crate) async fn ask(
    app: &Arc<App>,
    destination: &Destination,
    parts: &Parts,
    body: &Whole,
    coded: Option<Crossing>,
    limit: Duration,
) -> Option<Response<Body>> {
    let (outcome, request) = match coded {
        Some(crossing) => (outcome_of(&crossing), crossed(parts, crossing)),
        None => (Outcome::Passthrough, original(parts, body)),
    };
    match edge(app, destination, outcome, request, None, limit).await {
        Attempt::Answer(found, answer) => (found == outcome).then_some(answer),
        Attempt::Failed(_) => None,
    }
}

impl Terms {
    /// The time that is left.
    fn rest(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

async fn edge(
    app: &Arc<App>,
    destination: &Destination,
    outcome: Outcome,
    request: Request<Body>,
    chosen: Option<&Chosen>,
    limit: Duration,
) -> Attempt {
    let start = Instant::now();
    let bytes = request.body().size_hint().exact();
    let name = app.link.name();
    let answer = match timeout(limit, app.link.send(destination, request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Attempt::Failed(Failure {
                sent: matches!(error, LinkError::Broken(_)),
                edge_again: matches!(error, LinkError::Broken(_)),
                problem: unreachable(&error.to_string()),
            });
        }
        Err(_) => {
            let detail = format!(
                "no answer from the edge within {:.1} s",
                limit.as_secs_f64()
            );
            return Attempt::Failed(Failure {
                sent: true,
                edge_again: true,
                problem: problem(StatusCode::GATEWAY_TIMEOUT, "timeout", &detail),
            });
        }
    };
    let kind = relay::edge_error(&answer);
    let relayed = relay::from_edge(answer, app.keep_server_timing);
    let Some(kind) = kind else {
        let took = start.elapsed();
        let link = took.saturating_sub(relayed.edge.total());
        metrics::histogram!("sidecod_device_step_seconds", "step" => "link").record(link);
        if let Some(bytes) = bytes {
            if let Some(chosen) = chosen {
                let planner = &chosen.planner;
                planner.crossed(&name, bytes, took, &relayed.edge);
                planner.answered(chosen, bytes, took, &relayed.edge);
            } else if let Some(active) = app.bundle.get() {
                active.planner.crossed(&name, bytes, took, &relayed.edge);
            }
        }
        return Attempt::Answer(outcome, relayed.answer);
    };
    tracing::debug!(kind, "the edge refused");
    if kind == "unknown-bundle" {
        app.bundle.refused();
    }
    let problem = relayed.answer;
    match &kind[..] {
        // The model server is at work, and no other way to it makes it faster.
        "upstream-timeout" => Attempt::Answer(Outcome::Error, problem),
        "upstream-broken" => Attempt::Failed(Failure {
            sent: true,
            edge_again: false,
            problem,
        }),
        "upstream-unreachable" | "unauthorized" | "unknown-upstream" | "not-ready" => {
            Attempt::Failed(Failure {
                sent: false,
                edge_again: false,
                problem,
            })
        }
        // What is left has to do with the frame.
        _ => Attempt::Failed(Failure {
            sent: false,
            edge_again: true,
            problem,
        }),
    }
}

async fn direct(
    destination: &Destination,
    mut request: Request<Body>,
    limit: Option<Duration>,
) -> Attempt {
    let failed = |sent, problem| {
        Attempt::Failed(Failure {
            sent,
            edge_again: false,
            problem,
        })
    };
    let Some(direct) = &destination.direct else {
        return failed(
            false,
            unreachable("no direct address of the model server is configured"),
        );
    };
    remove_prefixed(request.headers_mut(), PREFIX);
    // The link has its own.
    *request.version_mut() = destination.version;
    match direct.send(request, limit).await {
        Ok(answer) => Attempt::Answer(Outcome::FallbackDirect, relay::from_upstream(answer)),
        Err(error) => failed(true, direct_problem(&error)),
    }
}

/// What the app is told when the model server itself gives no answer.
pub(crate) fn direct_problem(error: &UpstreamError) -> Response<Body> {
    let (status, kind) = match error {
        UpstreamError::Target(_) => (StatusCode::BAD_REQUEST, "bad-request"),
        UpstreamError::Timeout(..) => (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout"),
        UpstreamError::Loop(_) => {
            count_loop();
            (StatusCode::LOOP_DETECTED, "loop")
        }
        _ => (StatusCode::BAD_GATEWAY, "upstream-unreachable"),
    };
    problem(status, kind, &format!("directly: {error}"))
}

pub(crate) fn unreachable(detail: &str) -> Response<Body> {
    problem(StatusCode::BAD_GATEWAY, "edge-unreachable", detail)
}

/// An answer that the device has made.
fn own(content_type: String, body: bytes::Bytes) -> Response<Body> {
    let mut answer = Response::new(full(body));
    if let Ok(value) = HeaderValue::try_from(content_type) {
        answer.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    answer
}

/// How a request is answered that crossed in this form.
fn outcome_of(crossing: &Crossing) -> Outcome {
    match crossing {
        Crossing::Frame(_) => Outcome::Code,
        Crossing::Body { .. } => Outcome::Classical,
        Crossing::Answer { .. } => Outcome::Local,
    }
}

/// The request with its original body.
fn original(parts: &Parts, body: &Whole) -> Request<Body> {
    Request::from_parts(parts.clone(), body.body())
}

/// The request with what crosses in place of its body.
fn crossed(parts: &Parts, crossing: Crossing) -> Request<Body> {
    let mut parts = parts.clone();
    let headers = &mut parts.headers;
    // What crosses was made of the body without it.
    headers.remove(header::CONTENT_ENCODING);
    headers.insert(header::CONTENT_LENGTH, crossing.bytes().len().into());
    let bytes = match crossing {
        Crossing::Frame(frame) => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            frame
        }
        Crossing::Body {
            body,
            content_type,
            json_length,
        } => {
            let content_type = content_type.and_then(|value| HeaderValue::try_from(value).ok());
            if let Some(value) = content_type {
                headers.insert(header::CONTENT_TYPE, value);
            }
            if let Some(length) = json_length {
                headers.insert(JSON_LENGTH, length.into());
            }
            body
        }
        Crossing::Answer { body, .. } => body,
    };
    Request::from_parts(parts, full(bytes))
}
