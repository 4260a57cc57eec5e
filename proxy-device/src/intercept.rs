//! Requests as they come from the app.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, Entry};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use metrics::{Counter, Gauge};
use sidecod_sidecar::Body;
use sidecod_sidecar::access::{self, Known, Line};
use sidecod_sidecar::body::{self, HoldError, Whole, guarded, hold_while, streamed};
use sidecod_sidecar::hop::{remove_hop_by_hop, remove_prefixed};
use sidecod_sidecar::metrics::Gauged;
use sidecod_sidecar::otlp::TRACEPARENT;
use sidecod_sidecar::problem::problem;
use sidecod_sidecar::request_id::{self, REQUEST_ID, X_REQUEST_ID};
use sidecod_wire::header::PREFIX;
use sidecod_wire::slot::grpc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::app::App;
use crate::config::Route;
use crate::expect::Later;
use crate::fallback::{self, Outcome, Terms};
use crate::ingress::destination::Destination;
use crate::plan::Planned;
use crate::relay::EdgeSteps;
use crate::trial::{self, Held, Led};
use crate::{expect, plan, route, upgrade};

static IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| metrics::gauge!("sidecod_device_in_flight"));
static APP_BYTES: LazyLock<Counter> =
    LazyLock::new(|| metrics::counter!("sidecod_device_app_bytes_total"));

/// The route's name in metrics where none took the request.
pub(crate) const NO_ROUTE: &str = "none";

/// A body of the app, whose bytes the line of the request tells.
type AppBody = access::Counted<Incoming>;

/// Answers a request of the app.
pub async fn answer(
    app: Arc<App>,
    mut destination: Destination,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.version() == Version::HTTP_2 {
        // As gRPC wants it.
        destination.version = Version::HTTP_2;
    }
    let in_flight = Gauged::new(IN_FLIGHT.clone());
    let line = Line::begin(&app.access, &request);
    let known = |outcome| {
        move || Known {
            route: NO_ROUTE.to_owned(),
            outcome,
            ..Known::default()
        }
    };
    if let Some(refusal) = refusal(&request) {
        return line.end(known(Outcome::Error.name()), refusal);
    }
    if let Some(protocol) = sidecod_sidecar::upgrade::wanted(&request) {
        let answer = upgrade::answer(&app, &destination, request, protocol, in_flight);
        let answer = Box::pin(answer).await;
        return line.end(known("upgrade"), answer);
    }
    let routes = if destination.through_edge() {
        &app.routes[..]
    } else {
        &[]
    };
    let route = route::find(routes, &request);
    let name = route.map_or_else(|| NO_ROUTE.to_owned(), |route| route.name.clone());
    let (parts, body) = request.into_parts();
    let mut parts = end_to_end(parts);
    let body = line.count(body);
    let own_id = parts.headers.get(X_REQUEST_ID).cloned();
    if let Some(id) = line.id()
        && request_id::of(&parts.headers).is_none()
    {
        parts.headers.insert(REQUEST_ID, id.value());
    }
    if let Some(place) = line.place() {
        parts.headers.insert(TRACEPARENT, place.traceparent());
    }
    if let (Entry::Occupied(mut length), Some(bytes)) = (
        parts.headers.entry(CONTENT_LENGTH),
        body.size_hint().exact(),
    ) {
        // In one form, whatever the app's was.
        length.insert(bytes.into());
    }
    let mut coded = None;
    let (outcome, mut answer) = match route.and_then(|route| place(&app, route, &parts, &body)) {
        Some((route, place)) => {
            // In boxes, so that what most requests need stays small.
            let answered = routed(&app, &destination, route, place, parts, body);
            let (outcome, answer, frame) = Box::pin(answered).await;
            coded = frame;
            (outcome, answer)
        }
        None if body.is_end_stream() && destination.through_edge() => {
            Box::pin(bodiless(&app, &destination, parts)).await
        }
        None => {
            let (body, broken) = Counted::new(body);
            let body = Later::new(body, expect::waits(&parts));
            through(&app, &destination, parts, body, broken).await
        }
    };
    app.count(&name, outcome);
    if let Some(id) = own_id
        && !answer.headers().contains_key(X_REQUEST_ID)
    {
        answer.headers_mut().insert(X_REQUEST_ID, id);
    }
    let edge = answer.extensions_mut().remove::<EdgeSteps>();
    let known = || {
        let coded = coded.filter(|_| matches!(outcome, Outcome::Code | Outcome::Classical));
        let (sent, steps) = coded.map(|coded| (coded.bytes, coded.steps)).unzip();
        let steps = steps.into_iter().flatten();
        Known {
            route: name,
            outcome: outcome.name(),
            sent,
            steps: steps
                .chain(edge.into_iter().flat_map(|edge| edge.0))
                .collect(),
        }
    };
    line.end(known, answer.map(|body| guarded(body, in_flight)))
}

/// What is told of what crossed when it is gone.
#[derive(Debug, Clone)]
struct Sent {
    bytes: usize,
    steps: Vec<(&'static str, Duration)>,
}

/// Refuses what no reverse proxy can pass on.
fn refusal(request: &Request<Incoming>) -> Option<Response<Body>> {
    if request.method() == Method::CONNECT {
        let detail = "this listener is no forward proxy: it opens no tunnels";
        return Some(problem(StatusCode::METHOD_NOT_ALLOWED, "no-tunnel", detail));
    }
    // RFC 9112, section 3.2.
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let good = hosts.next().is_none_or(|host| is_host(host.as_bytes()));
    if !good || hosts.next().is_some() {
        let detail = "the request's Host is no host, or there are several";
        let mut answer = problem(StatusCode::BAD_REQUEST, "bad-request", detail);
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
        return Some(answer);
    }
    None
}

/// Whether `Host` may have this value: none, or a host with or without a port.
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || !value.contains(&b'@') && Authority::try_from(value).is_ok()
}

/// A place in memory for the body of a request that may be coded; none where it has to pass through.
fn place<'r>(
    app: &App,
    route: &'r Route,
    parts: &Parts,
    body: &AppBody,
) -> Option<(&'r Route, OwnedSemaphorePermit)> {
    // Where the length is not known, more is taken as it arrives.
    let bytes = body.size_hint().exact().unwrap_or(0);
    let reason = if !plan::may_offload(&parts.headers) {
        "headers"
    } else if may_stream(parts) {
        "stream"
    } else if bytes > route.max_body as u64 {
        "max_body"
    } else {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        match app.held.clone().try_acquire_many_owned(kib) {
            Ok(permit) => return Some((route, permit)),
            Err(_) => "memory",
        }
    };
    plan::count_not_coded(route, reason);
    None
}

/// Makes a place in memory one for so many bytes, if there is room.
fn grow(place: &mut OwnedSemaphorePermit, held: &Arc<Semaphore>, bytes: usize) -> bool {
    let more = bytes.div_ceil(1024).saturating_sub(place.num_permits());
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    match held.clone().try_acquire_many_owned(more) {
        Ok(more) => {
            place.merge(more);
            true
        }
        Err(_) => false,
    }
}

/// Whether the app may wait for an answer before it ends its body, so that it must not be waited for.
fn may_stream(parts: &Parts) -> bool {
    let content_type = route::content_type(&parts.headers);
    content_type.is_some_and(grpc::is) && grpc::may_stream(parts.uri.path())
}

/// A request that a route takes: its body is held, so that it can be coded, and sent again.
async fn routed(
    app: &Arc<App>,
    destination: &Destination,
    route: &Route,
    mut place: OwnedSemaphorePermit,
    mut parts: Parts,
    body: AppBody,
) -> (Outcome, Response<Body>, Option<Sent>) {
    // The listener asks the app to go on when the body is read.
    parts.headers.remove(header::EXPECT);
    let refused = |status, kind, error: HoldError| {
        let problem = problem(status, kind, &error.to_string());
        (Outcome::Error, problem, None)
    };
    let (body, broken) = Counted::new(body);
    let mut limit = "max_body";
    let may = |bytes| {
        if bytes > route.max_body {
            return false;
        }
        let grown = grow(&mut place, &app.held, bytes);
        if !grown {
            limit = "memory";
        }
        grown
    };
    let whole = match hold_while(body, may, app.body_timeout).await {
        Ok(body::Held::Whole(whole)) => whole,
        Ok(body::Held::Over(body)) => {
            plan::count_not_coded(route, limit);
            let (outcome, answer) = through(app, destination, parts, body, broken).await;
            return (outcome, answer, None);
        }
        Err(error @ HoldError::Timeout(_)) => {
            return refused(StatusCode::REQUEST_TIMEOUT, "body-timeout", error);
        }
        Err(error @ HoldError::Broken(_)) => {
            return refused(StatusCode::BAD_REQUEST, "body-broken", error);
        }
    };
    let begin = Instant::now();
    let forced = app.plan.forced(&mut parts.headers);
    let terms = Terms {
        deadline: begin + route.timeout(),
        idempotent: route.idempotent,
        whole_answer: true,
    };
    let ticket = app.trials.ticket(route);
    let planned = match ticket.not_coded() {
        None => plan::plan(app, route, &parts.headers, &whole, forced).await,
        Some(reason) => {
            plan::count_not_coded(route, reason);
            Planned::default()
        }
    };
    let sent = planned.crossing.as_ref().map(|crossing| Sent {
        bytes: crossing.bytes().len(),
        steps: planned.steps.clone(),
    });
    let (outcome, answer) = fallback::send(app, destination, &parts, &whole, planned, terms).await;
    let led = Led {
        outcome,
        frame: sent.as_ref().map(|sent| sent.bytes),
        took: begin.elapsed(),
    };
    let held = Held {
        parts,
        whole,
        _place: place,
    };
    let answer = trial::follow(app, destination, route, ticket, &led, held, answer);
    (outcome, answer, sent)
}

/// A request without a body that no route takes: it can be sent again.
async fn bodiless(
    app: &Arc<App>,
    destination: &Destination,
    parts: Parts,
) -> (Outcome, Response<Body>) {
    let terms = Terms {
        deadline: Instant::now() + UNROUTED,
        idempotent: parts.method.is_idempotent(),
        whole_answer: false,
    };
    fallback::send(
        app,
        destination,
        &parts,
        &Whole::default(),
        Planned::default(),
        terms,
    )
    .await
}

/// Longest time until the answer of a request without a body and a route begins.
const UNROUTED: Duration = Duration::from_mins(10);

/// A request whose body goes on as it arrives.
async fn through<B>(
    app: &Arc<App>,
    destination: &Destination,
    parts: Parts,
    body: B,
    broken: Broken,
) -> (Outcome, Response<Body>)
where
    B: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + 'static,
{
    let request = Box::new(Request::from_parts(parts, streamed(body)));
    let (outcome, answer) = fallback::send_streamed(app, destination, request).await;
    if outcome == Outcome::Error && broken.load(Ordering::Relaxed) {
        let detail = "the body broke off, or its framing is wrong";
        return (
            outcome,
            problem(StatusCode::BAD_REQUEST, "body-broken", detail),
        );
    }
    (outcome, answer)
}

/// The head of a request without what ends here.
pub(crate) fn end_to_end(mut parts: Parts) -> Parts {
    remove_hop_by_hop(&mut parts.headers);
    remove_prefixed(&mut parts.headers, PREFIX);
    parts.extensions.clear();
    parts
}

/// A body of the app whose bytes are counted.
struct Counted {
    body: AppBody,
    broken: Broken,
}

/// Whether a body broke on its way from the app, which is then to blame.
type Broken = Arc<AtomicBool>;

impl Counted {
    fn new(body: AppBody) -> (Self, Broken) {
        let broken = Broken::default();
        let counted = Self {
            body,
            broken: broken.clone(),
        };
        (counted, broken)
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let frame = std::pin::Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            std::task::Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                APP_BYTES.increment(bytes as u64);
            }
            std::task::Poll::Ready(Some(Err(_))) => self.broken.store(true, Ordering::Relaxed),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
