//! The forward proxy: an app whose `HTTP_PROXY` names this listener says in each request where it
//! goes, in absolute form (RFC 9112, section 3.2.2). `CONNECT` opens a tunnel, in which nothing is
//! read: that is how https arrives.

use std::sync::Arc;

use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sidecod_sidecar::Body;
use sidecod_sidecar::body;
use sidecod_sidecar::listen::{self, Place, Service};
use sidecod_sidecar::own::Made;
use sidecod_sidecar::problem::problem;
use sidecod_sidecar::upstream::BaseUrl;

use super::destination::{Destination, HostPort};
use super::tunnel::{self, TunnelError};
use super::{Way, refuse_loop};
use crate::app::App;
use crate::intercept;
use crate::reload::Current;

/// What answers the requests of a connection that has this place.
#[must_use]
pub fn service(current: Current, place: Place) -> impl Service {
    listen::service(move |request| answer(current.get(), place.clone(), request))
}

async fn answer(app: Arc<App>, place: Place, mut request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::CONNECT {
        return connect(&app, place, request).await;
    }
    let destination = match destination(&app, &request) {
        Ok(destination) => destination,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, "bad-request", &detail),
    };
    // It was for this proxy (RFC 9110, section 11.7.2).
    request.headers_mut().remove(header::PROXY_AUTHORIZATION);
    intercept::answer(app, destination, request).await
}

/// Where a request in absolute form goes.
fn destination<B>(app: &App, request: &Request<B>) -> Result<Destination, String> {
    let uri = request.uri();
    let Some(authority) = uri.authority() else {
        return Err(format!(
            "this listener is a forward proxy and wants the whole URL in the request line, not `{uri}`; \
             an app that has this sidecar as its base URL belongs to a listener of listen.reverse"
        ));
    };
    if uri.scheme() != Some(&Scheme::HTTP) {
        return Err(format!(
            "a forward proxy takes http:// URLs, and CONNECT for anything else, not `{uri}`"
        ));
    }
    if authority.as_str().contains('@') {
        return Err("the URL holds a user or a password".to_owned());
    }
    let base = BaseUrl::of(authority).map_err(|error| format!("`{authority}`: {error}"))?;
    Ok(Destination {
        upstream: app.listed.named(&HostPort::of(authority)),
        direct: Some(Arc::new(app.outside.to(base))),
        version: Version::HTTP_11,
    })
}

/// Opens a tunnel (RFC 9110, section 9.3.6).
async fn connect(app: &Arc<App>, place: Place, request: Request<Incoming>) -> Response<Body> {
    let target = request
        .uri()
        .authority()
        .filter(|target| names_port(target));
    let Some(target) = target.map(HostPort::of) else {
        let detail = format!("CONNECT wants host:port, not `{}`", request.uri());
        return problem(StatusCode::BAD_REQUEST, "bad-request", &detail);
    };
    let server = match open(app, &target).await {
        Ok(server) => server,
        Err(error @ TunnelError::Loop(_)) => {
            return refuse_loop(&error.to_string());
        }
        Err(error @ TunnelError::Timeout(..)) => {
            let detail = error.to_string();
            return problem(StatusCode::GATEWAY_TIMEOUT, "destination-timeout", &detail);
        }
        Err(error @ TunnelError::Unreachable(..)) => {
            let detail = error.to_string();
            return problem(StatusCode::BAD_GATEWAY, "destination-unreachable", &detail);
        }
    };
    let idle = app.ways.tunnel_idle;
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(client) => {
                tunnel::run(TokioIo::new(client), server, Way::Forward, "connect", idle).await;
            }
            Err(error) => tracing::debug!(%error, "the app left before its tunnel was open"),
        }
        drop(place);
    });
    Response::new(body::empty())
}

fn names_port(target: &Authority) -> bool {
    target.port_u16().is_some() && !target.as_str().contains('@')
}

async fn open(app: &App, target: &HostPort) -> Result<Made, TunnelError> {
    tunnel::open(&app.own, target, app.ways.connect_timeout).await
}
