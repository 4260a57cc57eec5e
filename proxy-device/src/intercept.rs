//! Requests as they come from the app.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use sidecod_sidecar::Body;
use sidecod_sidecar::body::{Held, HoldError, Whole, guarded, hold, streamed};
use sidecod_sidecar::hop::{remove_hop_by_hop, remove_prefixed};
use sidecod_sidecar::metrics::Gauged;
use sidecod_sidecar::problem::problem;
use sidecod_wire::header::PREFIX;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::app::App;
use crate::config::Route;
use crate::fallback::{self, Outcome, Terms};
use crate::ingress::destination::Destination;
use crate::{plan, route};

/// The route's name in metrics where none took the request.
const NO_ROUTE: &str = "none";

/// Answers a request of the app.
pub async fn answer(
    app: Arc<App>,
    destination: Destination,
    request: Request<Incoming>,
) -> Response<Body> {
    let in_flight = Gauged::new(metrics::gauge!("sidecod_device_in_flight"));
    if let Some(refusal) = refusal(&request) {
        return refusal;
    }
    let routes = if destination.through_edge() {
        &app.routes[..]
    } else {
        &[]
    };
    let route = route::find(routes, &request);
    let name = route.map_or_else(|| NO_ROUTE.to_owned(), |route| route.name.clone());
    let (parts, body) = request.into_parts();
    let parts = end_to_end(parts);
    let (outcome, answer) = match route.and_then(|route| place(&app, route, &parts, &body)) {
        Some((route, place)) => routed(&app, &destination, route, place, parts, body).await,
        None if body.is_end_stream() && destination.through_edge() => {
            bodiless(&app, &destination, parts).await
        }
        None => through(&app, &destination, parts, Counted { body }).await,
    };
    metrics::counter!("sidecod_device_requests_total", "route" => name, "outcome" => outcome.name())
        .increment(1);
    answer.map(|body| guarded(body, in_flight))
}

/// Refuses what no reverse proxy can pass on.
fn refusal(request: &Request<Incoming>) -> Option<Response<Body>> {
    if request.method() == Method::CONNECT {
        let detail = "this listener is no forward proxy: it opens no tunnels";
        return Some(problem(StatusCode::METHOD_NOT_ALLOWED, "no-tunnel", detail));
    }
    // RFC 9112, section 3.2.
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        let detail = "the request has more than one Host";
        return Some(problem(StatusCode::BAD_REQUEST, "bad-request", detail));
    }
    None
}

/// A place in memory for the body of a request that may be coded; none where it has to pass through.
fn place<'r>(
    app: &App,
    route: &'r Route,
    parts: &Parts,
    body: &Incoming,
) -> Option<(&'r Route, OwnedSemaphorePermit)> {
    let bytes = body.size_hint().exact().unwrap_or(route.max_body as u64);
    let reason = if !plan::may_offload(&parts.headers) {
        "headers"
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

/// A request that a route takes: its body is held, so that it can be coded, and sent again.
async fn routed(
    app: &Arc<App>,
    destination: &Destination,
    route: &Route,
    place: OwnedSemaphorePermit,
    parts: Parts,
    body: Incoming,
) -> (Outcome, Response<Body>) {
    let refused = |status, kind, error: HoldError| {
        (Outcome::Error, problem(status, kind, &error.to_string()))
    };
    let whole = match hold(Counted { body }, route.max_body, app.body_timeout).await {
        Ok(Held::Whole(whole)) => whole,
        Ok(Held::Over(body)) => {
            plan::count_not_coded(route, "max_body");
            return through(app, destination, parts, body).await;
        }
        Err(error @ HoldError::Timeout(_)) => {
            return refused(StatusCode::REQUEST_TIMEOUT, "body-timeout", error);
        }
        Err(error @ HoldError::Broken(_)) => {
            return refused(StatusCode::BAD_REQUEST, "body-broken", error);
        }
    };
    let deadline = Instant::now() + route.timeout();
    let coded = plan::frame(app, route, &parts.headers, &whole).await;
    let terms = Terms {
        deadline,
        idempotent: route.idempotent,
    };
    let answer = fallback::send(app, destination, &parts, &whole, coded, terms).await;
    drop(place);
    answer
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
    };
    fallback::send(app, destination, &parts, &Whole::default(), None, terms).await
}

/// Longest time until the answer of a request without a body and a route begins.
const UNROUTED: Duration = Duration::from_mins(10);

/// A request whose body goes on as it arrives.
async fn through<B>(
    app: &Arc<App>,
    destination: &Destination,
    parts: Parts,
    body: B,
) -> (Outcome, Response<Body>)
where
    B: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + 'static,
{
    let request = Request::from_parts(parts, streamed(body));
    fallback::send_streamed(app, destination, request).await
}

/// The head of a request without what ends here.
fn end_to_end(mut parts: Parts) -> Parts {
    remove_hop_by_hop(&mut parts.headers);
    remove_prefixed(&mut parts.headers, PREFIX);
    // The listener has asked the app to go on by reading the body.
    parts.headers.remove(header::EXPECT);
    parts.extensions.clear();
    parts
}

/// A body of the app whose bytes are counted.
struct Counted {
    body: Incoming,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let frame = std::pin::Pin::new(&mut self.body).poll_frame(context);
        if let std::task::Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            metrics::counter!("sidecod_device_app_bytes_total").increment(data.len() as u64);
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
