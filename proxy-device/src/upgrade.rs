//! A request to change the protocol, such as a WebSocket's: it crosses the link as a stream whose two
//! bodies carry the bytes of the new protocol, or goes to the model server directly.

use std::sync::Arc;

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sidecod_sidecar::body::{BoxError, empty, guarded, streamed};
use sidecod_sidecar::hop::{remove_hop_by_hop, remove_prefixed};
use sidecod_sidecar::metrics::Gauged;
use sidecod_sidecar::upgrade::{ASK, DONE, IDLE};
use sidecod_sidecar::{Body, tunnel};
use sidecod_wire::header::PREFIX;

use crate::app::App;
use crate::fallback::{Outcome, direct_problem, send_streamed, unreachable};
use crate::ingress::destination::Destination;
use crate::intercept::{NO_ROUTE, end_to_end};
use crate::link::LinkError;
use crate::relay;

/// Longest time until a model server that is asked directly answers.
const DIRECT_LIMIT: std::time::Duration = std::time::Duration::from_mins(1);

/// Answers a request that asks for `protocol`.
pub(crate) async fn answer(
    app: &Arc<App>,
    destination: &Destination,
    mut request: Request<Incoming>,
    protocol: HeaderValue,
    in_flight: Gauged,
) -> Response<Body> {
    let from_app = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let mut parts = end_to_end(parts);
    // With a body it is a request like any other; a server need not take up the offer.
    let (outcome, answer) = if !body.is_end_stream() {
        let request = Box::new(Request::from_parts(parts, streamed(body)));
        let (outcome, answer) = send_streamed(app, destination, request).await;
        (outcome, Done::Other(answer))
    } else if !destination.through_edge() {
        let request = Request::from_parts(parts, empty());
        let answer = directly(destination, request, protocol).await;
        (Outcome::Elsewhere, answer)
    } else {
        let (to_edge, channel) = Channel::new(1);
        parts.headers.insert(ASK, protocol.clone());
        let request = Box::new(Request::from_parts(parts, streamed(channel)));
        match app.link.send(destination, request, None).await {
            Ok(answer) => (Outcome::Passthrough, through_edge(app, answer, to_edge)),
            Err(LinkError::Unreachable { request, .. }) if destination.direct.is_some() => {
                let answer = directly(destination, *request, protocol).await;
                (Outcome::FallbackDirect, answer)
            }
            Err(error) => (Outcome::Error, Done::Other(unreachable(&error.to_string()))),
        }
    };
    app.count(NO_ROUTE, outcome);
    match answer {
        Done::Other(mut answer) => {
            // What follows on this connection has not been checked.
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
            answer.map(|body| guarded(body, in_flight))
        }
        Done::Upgraded(headers, peer) => {
            tokio::spawn(async move {
                let _in_flight = in_flight;
                if let Err(error) = join(from_app, peer).await {
                    tracing::debug!(%error, "an upgraded connection");
                }
            });
            let mut answer = Response::new(empty());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *answer.headers_mut() = headers;
            answer
        }
    }
}

/// What came of asking.
enum Done {
    /// The other side has changed its protocol.
    Upgraded(HeaderMap, Peer),
    /// Any other answer.
    Other(Response<Body>),
}

/// The other side of an upgraded connection.
enum Peer {
    Edge(Sender<bytes::Bytes, BoxError>, Incoming),
    Direct(OnUpgrade),
}

fn through_edge(
    app: &App,
    answer: Response<Incoming>,
    to_edge: Sender<bytes::Bytes, BoxError>,
) -> Done {
    let Some(protocol) = answer.headers().get(DONE).cloned() else {
        return Done::Other(relay::from_edge(answer, app.keep_server_timing).answer);
    };
    let (parts, from_edge) = answer.into_parts();
    let headers = switched(parts.headers, protocol);
    Done::Upgraded(headers, Peer::Edge(to_edge, from_edge))
}

async fn directly(
    destination: &Destination,
    mut request: Request<Body>,
    protocol: HeaderValue,
) -> Done {
    let Some(direct) = &destination.direct else {
        return Done::Other(unreachable(
            "no direct address of the model server is configured",
        ));
    };
    // The link has its own, and only this one has upgrades.
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_prefixed(headers, PREFIX);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
    *request.body_mut() = empty();
    match direct.send(request, Some(DIRECT_LIMIT)).await {
        Ok(mut answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let upgraded = hyper::upgrade::on(&mut answer);
            let (parts, _) = answer.into_parts();
            let protocol = parts.headers.get(UPGRADE).cloned();
            let protocol = protocol.unwrap_or(HeaderValue::from_static(""));
            Done::Upgraded(switched(parts.headers, protocol), Peer::Direct(upgraded))
        }
        Ok(answer) => Done::Other(relay::from_upstream(answer)),
        Err(error) => Done::Other(direct_problem(&error)),
    }
}

/// The headers of a 101 for the app.
fn switched(mut headers: HeaderMap, protocol: HeaderValue) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    remove_prefixed(&mut headers, PREFIX);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
    headers
}

async fn join(from_app: OnUpgrade, peer: Peer) -> Result<(), BoxError> {
    match peer {
        Peer::Edge(to_edge, from_edge) => {
            let app = TokioIo::new(from_app.await?);
            tunnel::join(app, to_edge, from_edge, IDLE).await?;
        }
        Peer::Direct(upgraded) => {
            let mut app = TokioIo::new(from_app.await?);
            let mut server = TokioIo::new(upgraded.await?);
            tokio::io::copy_bidirectional(&mut app, &mut server).await?;
        }
    }
    Ok(())
}
