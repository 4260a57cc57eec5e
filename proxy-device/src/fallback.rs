//! The ladder: code, then the original body through the edge, then the model server directly, then
//! the model on the device, then a clear error. A request is sent again only where that is safe, and
//! never after an answer began.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;
use sidecod_sidecar::Body;
use sidecod_sidecar::body::{Held, HoldError, Whole, full, hold, streamed};
use sidecod_sidecar::hop::remove_prefixed;
use sidecod_sidecar::problem::problem;
use sidecod_sidecar::upstream::UpstreamError;
use sidecod_wire::frame::CONTENT_TYPE;
use sidecod_wire::header::{JSON_LENGTH, PREFIX};
use tokio::time::Instant;
use tower::retry::budget::Budget;

use crate::app::App;
use crate::encode::Crossing;
use crate::ingress::count_loop;
use crate::ingress::destination::Destination;
use crate::link::{LinkError, Via};
use crate::plan::planner::Chosen;
use crate::plan::{self, Planned};
use crate::relay::{self, STEPS};

/// Bytes of an answer that is waited for as a whole.
const SMALL_ANSWER: usize = 64 << 10;

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
    /// Whether a small answer is waited for as a whole, so that the request can be sent again where
    /// it breaks off.
    pub whole_answer: bool,
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
    /// What is worth trying next.
    next: Next,
    /// What the app is told if no step helps.
    problem: Response<Body>,
}

/// A step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// The code, at another edge: this one has not looked at it.
    Code,
    /// The original body: this or another edge could do better with it.
    Original,
    /// The model server directly: no edge could do better.
    Direct,
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
    app.retries.deposit();
    let whole = terms.whole_answer;
    let mut ladder = Ladder {
        app,
        terms,
        failure: None,
    };
    if let Some(crossing) = crossing {
        let (outcome, chosen) = (outcome_of(&crossing), chosen.take());
        // Twice at most: each time that an edge refuses it unseen, that edge is left out.
        for _ in 0..2 {
            if ladder.goes_on(Next::Code) {
                let request = crossed(parts, crossing.clone());
                let (chosen, limit) = (chosen.as_ref(), terms.attempt(terms.idempotent));
                let attempt = edge(app, destination, outcome, request, chosen, limit, whole);
                if let Some(done) = ladder.take(attempt.await) {
                    return done;
                }
            }
        }
    }
    if ladder.goes_on(Next::Original) {
        let request = original(parts, body);
        let limit = terms.attempt(terms.idempotent && destination.direct.is_some());
        let chosen = chosen.as_ref();
        let attempt = edge(
            app,
            destination,
            through_edge,
            request,
            chosen,
            limit,
            whole,
        );
        if let Some(done) = ladder.take(attempt.await) {
            return done;
        }
    }
    if destination.direct.is_some() && ladder.goes_on(Next::Direct) {
        let attempt = direct(destination, original(parts, body), Some(terms.rest())).await;
        if let Some(done) = ladder.take(attempt) {
            return done;
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
    let problem = ladder.failure.map_or_else(nothing, |failed| failed.problem);
    (Outcome::Error, problem)
}

/// Where a request is on its way down.
struct Ladder<'a> {
    app: &'a App,
    terms: Terms,
    failure: Option<Failure>,
}

impl Ladder<'_> {
    /// Whether `step` is worth trying and allowed.
    fn goes_on(&mut self, step: Next) -> bool {
        let Some(failed) = &mut self.failure else {
            return true;
        };
        if failed.next > step || self.terms.rest().is_zero() {
            return false;
        }
        if failed.sent {
            if !self.terms.idempotent {
                return false;
            }
            let allowed = self.app.retries.withdraw();
            let outcome = if allowed { "allowed" } else { "refused" };
            metrics::counter!("sidecod_device_retries_total", "outcome" => outcome).increment(1);
            if !allowed {
                // For the steps that are left as well.
                self.terms.idempotent = false;
            }
            return allowed;
        }
        true
    }

    fn take(&mut self, attempt: Attempt) -> Option<(Outcome, Response<Body>)> {
        match attempt {
            Attempt::Answer(outcome, answer) => Some((outcome, answer)),
            Attempt::Failed(mut failed) => {
                // Who may have got it once may have it still.
                failed.sent |= self.failure.as_ref().is_some_and(|earlier| earlier.sent);
                self.failure = Some(failed);
                None
            }
        }
    }
}

/// Sends a request whose body still arrives: once, and past the edge only if nothing of it has been
/// sent. Its answer may take as long as it takes: nobody but the app knows how long the body is.
pub async fn send_streamed(
    app: &Arc<App>,
    destination: &Destination,
    request: Box<Request<Body>>,
) -> (Outcome, Response<Body>) {
    if !destination.through_edge() {
        return match Box::pin(direct(destination, request, None)).await {
            Attempt::Answer(_, answer) => (Outcome::Elsewhere, answer),
            Attempt::Failed(failed) => (Outcome::Error, failed.problem),
        };
    }
    match app.link.send(destination, request, None).await {
        Ok(answer) => (
            Outcome::Passthrough,
            relay::from_edge(answer, app.keep_server_timing).answer,
        ),
        Err(LinkError::Unreachable { request, .. }) if destination.direct.is_some() => {
            match Box::pin(direct(destination, request, None)).await {
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
    match edge(app, destination, outcome, request, None, limit, false).await {
        Attempt::Answer(found, answer) => (found == outcome).then_some(answer),
        Attempt::Failed(_) => None,
    }
}

impl Terms {
    /// The time that is left.
    fn rest(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The time of an attempt: all that is left, or where something is worth trying after it, two
    /// thirds of it.
    fn attempt(&self, more: bool) -> Duration {
        let rest = self.rest();
        if more { rest * 2 / 3 } else { rest }
    }
}

async fn edge(
    app: &Arc<App>,
    destination: &Destination,
    outcome: Outcome,
    request: Box<Request<Body>>,
    chosen: Option<&Chosen>,
    limit: Duration,
    whole_answer: bool,
) -> Attempt {
    let start = Instant::now();
    let bytes = request.body().size_hint().exact();
    let mut answer = match app.link.send(destination, request, Some(limit)).await {
        Ok(answer) => answer,
        Err(error) => {
            let detail = error.to_string();
            let (sent, next, problem) = match error {
                LinkError::Unreachable { .. } => (false, Next::Direct, unreachable(&detail)),
                // It may have been the code that broke it.
                LinkError::Broken(_) => (true, Next::Original, unreachable(&detail)),
                LinkError::Timeout(_) => {
                    let problem = problem(StatusCode::GATEWAY_TIMEOUT, "timeout", &detail);
                    let next = match destination.direct {
                        Some(_) => Next::Direct,
                        None => Next::Original,
                    };
                    (true, next, problem)
                }
            };
            return failed(sent, next, problem);
        }
    };
    let via = answer.extensions_mut().remove::<Via>();
    let kind = relay::edge_error(&answer);
    let relayed = relay::from_edge(answer, app.keep_server_timing);
    let Some(kind) = kind else {
        let took = start.elapsed();
        let link = took.saturating_sub(relayed.edge.total());
        STEPS.get("link").record(link);
        if let (Some(bytes), Some(Via(name))) = (bytes, via) {
            if let Some(chosen) = chosen {
                let planner = &chosen.planner;
                planner.crossed(&name, bytes, took, &relayed.edge);
                planner.answered(chosen, &name, bytes, took, &relayed.edge);
            } else if let Some(active) = app.bundle.get() {
                active.planner.crossed(&name, bytes, took, &relayed.edge);
            }
        }
        let rest = limit.saturating_sub(start.elapsed());
        if !whole_answer {
            return Attempt::Answer(outcome, relayed.answer);
        }
        return match whole_if_small(relayed.answer, rest).await {
            Ok(answer) => Attempt::Answer(outcome, answer),
            Err(error) => {
                let detail = format!("the answer: {error}");
                failed(true, Next::Original, unreachable(&detail))
            }
        };
    };
    tracing::debug!(kind, "the edge refused");
    if kind == "unknown-bundle" {
        app.bundle.refused();
    }
    let problem = relayed.answer;
    match &kind[..] {
        // The model server is at work, and no other way to it makes it faster.
        "upstream-timeout" | "upstream-busy" => Attempt::Answer(Outcome::Error, problem),
        "upstream-broken" => failed(true, Next::Direct, problem),
        // The model server was asked with a feature, and may do better with the original.
        "bad-answer" => failed(true, Next::Original, problem),
        "upstream-unreachable" | "unauthorized" | "unknown-upstream" => {
            failed(false, Next::Direct, problem)
        }
        "not-ready" => failed(false, Next::Code, problem),
        // What is left has to do with the frame.
        _ => failed(false, Next::Original, problem),
    }
}

/// Waits for all of a small answer, so that the request can be sent again where the link breaks in
/// the middle of it. A larger one is streamed: once the app has its head there is no way back.
async fn whole_if_small(
    answer: Response<Body>,
    limit: Duration,
) -> Result<Response<Body>, HoldError> {
    let bytes = answer.body().size_hint().exact();
    if bytes.is_none_or(|bytes| bytes == 0 || bytes > SMALL_ANSWER as u64) {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let body = match hold(body, SMALL_ANSWER, limit).await? {
        Held::Whole(whole) => whole.body(),
        Held::Over(body) => streamed(body),
    };
    Ok(Response::from_parts(parts, body))
}

fn failed(sent: bool, next: Next, problem: Response<Body>) -> Attempt {
    Attempt::Failed(Failure {
        sent,
        next,
        problem,
    })
}

async fn direct(
    destination: &Destination,
    mut request: Box<Request<Body>>,
    limit: Option<Duration>,
) -> Attempt {
    let failed = |sent, problem| failed(sent, Next::Direct, problem);
    let Some(direct) = &destination.direct else {
        return failed(
            false,
            unreachable("no direct address of the model server is configured"),
        );
    };
    remove_prefixed(request.headers_mut(), PREFIX);
    // The link has its own.
    *request.version_mut() = destination.version;
    match direct.send(*request, limit).await {
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
        UpstreamError::Broken(..) => (StatusCode::BAD_GATEWAY, "upstream-broken"),
        UpstreamError::Unreachable(..) => (StatusCode::BAD_GATEWAY, "upstream-unreachable"),
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
fn original(parts: &Parts, body: &Whole) -> Box<Request<Body>> {
    Box::new(Request::from_parts(parts.clone(), body.body()))
}

/// The request with what crosses in place of its body.
fn crossed(parts: &Parts, crossing: Crossing) -> Box<Request<Body>> {
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
    Box::new(Request::from_parts(parts, full(bytes)))
}
