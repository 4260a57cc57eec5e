//! The transparent proxy: connections that the system has redirected (nft or iptables `REDIRECT`,
//! see [`crate::redirect`]) and of which it still knows where they were to go.
//!
//! A connection to a destination that is not listed is tunnelled at once: nothing in it is for this
//! sidecar, so nothing of it is delayed, read or changed. One to a listed destination is served if
//! it is HTTP, as [`super::detect`] says, and tunnelled else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::Authority;
use http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use sidecod_sidecar::listen::{self, Place, Service};
use sidecod_sidecar::own::{Made, canonical};
use sidecod_sidecar::upstream::BaseUrl;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::destination::Destination;
use super::detect::{Protocol, detect};
use super::tunnel::{self, TunnelError};
use super::{Ingress, Way, count_loop, refuse_loop, replay};
use crate::app::App;
use crate::intercept;
use crate::reload::Current;

/// Serves a redirected connection to its end.
pub async fn serve(ingress: Ingress, stream: TcpStream, peer: SocketAddr, place: Place) {
    match original_destination(&stream) {
        Ok(original) => serve_to(ingress, stream, peer, original, place).await,
        Err(error) => tracing::debug!(%error, "a connection was gone before it was looked at"),
    }
}

/// Where a connection was to go before the system redirected it; its own address if it was not.
fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = stream.local_addr()?;
    let original = if canonical(local).is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    let original = original.ok().and_then(|address| address.as_socket());
    Ok(canonical(original.unwrap_or(local)))
}

/// Serves a connection that was to go to `original` to its end.
pub async fn serve_to(
    ingress: Ingress,
    mut stream: TcpStream,
    peer: SocketAddr,
    original: SocketAddr,
    place: Place,
) {
    let app = ingress.current.get();
    let looped = || app.own.is_listener(original) || app.own.is_outgoing(peer);
    let destination = listed(&app, original);
    if destination.is_none() && !looped() {
        return elsewhere(&app, stream, original).await;
    }
    let mut buffer = BytesMut::new();
    let detected = timeout(app.ways.detect_timeout, detect(&mut stream, &mut buffer)).await;
    let protocol = match detected {
        Ok(detected) => detected,
        Err(_) if looped() => return count_loop(),
        Err(_) if buffer.is_empty() => {
            let mut shutdown = ingress.shutdown.clone();
            let first = tokio::select! {
                first = wait(&app, &mut stream, original, &mut buffer) => first,
                () = shutdown.wait() => None,
            };
            match first {
                Some(First::App(protocol)) => Ok(protocol),
                Some(First::Server(server)) => {
                    return run(&app, stream, server, "server_first").await;
                }
                None => return,
            }
        }
        Err(_) => Ok(Protocol::Other),
    };
    let protocol = match protocol {
        Ok(protocol) => protocol,
        Err(error) => return tracing::debug!(%error, "a connection broke before it was known"),
    };
    let first = buffer.freeze();
    let destination = destination.filter(|_| !looped());
    match (protocol, destination) {
        (Protocol::Other, Some(_)) => {
            if let Some(server) = open(&app, original).await {
                run(&app, replay(first, stream), server, "protocol").await;
            }
        }
        (Protocol::Other, None) => count_loop(),
        (_, None) => {
            let service = refusals(original);
            ingress.http(protocol, first, stream, service, place).await;
        }
        (_, Some(destination)) => {
            let service = service(ingress.current.clone(), destination, original);
            ingress.http(protocol, first, stream, service, place).await;
        }
    }
}

/// What a connection to `original` is for, if that is listed.
fn listed(app: &App, original: SocketAddr) -> Option<Destination> {
    let upstream = app.listed.at(original)?;
    let authority: Authority = original.to_string().parse().ok()?;
    Some(Destination {
        upstream: Some(upstream),
        direct: Some(Arc::new(app.outside.to(BaseUrl::of(&authority).ok()?))),
        version: Version::HTTP_11,
    })
}

/// Who spoke first on a connection that was silent at first.
enum First {
    /// The app, in this protocol.
    App(Protocol),
    /// The server.
    Server(Made),
}

/// Connects to the server and waits for the first byte of either side; none comes if the server
/// cannot be reached, or the time of an idle tunnel is up.
async fn wait(
    app: &App,
    stream: &mut TcpStream,
    original: SocketAddr,
    buffer: &mut BytesMut,
) -> Option<First> {
    let first = async {
        let server = open(app, original).await?;
        tokio::select! {
            protocol = detect(stream, buffer) => Some(First::App(protocol.ok()?)),
            _ = server.socket().readable() => Some(First::Server(server)),
        }
    };
    timeout(app.ways.tunnel_idle, first).await.ok()?
}

/// Tunnels a connection that is not for this sidecar.
async fn elsewhere(app: &App, stream: TcpStream, original: SocketAddr) {
    match open(app, original).await {
        Some(server) => run(app, stream, server, "elsewhere").await,
        // The app learns of a server that cannot be reached as it would have: by a reset.
        None => drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
    }
}

/// Connects to where a connection was to go.
async fn open(app: &App, original: SocketAddr) -> Option<Made> {
    match tunnel::open_at(&app.own, original, app.ways.connect_timeout).await {
        Ok(server) => return Some(server),
        Err(TunnelError::Loop(_)) => count_loop(),
        Err(error) => tracing::debug!(%error, "no tunnel"),
    }
    None
}

async fn run<S>(app: &App, stream: S, server: Made, reason: &'static str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tunnel::run(
        stream,
        server,
        Way::Transparent,
        reason,
        app.ways.tunnel_idle,
    )
    .await;
}

fn service(current: Current, destination: Destination, original: SocketAddr) -> impl Service {
    // What a request of HTTP/1.0 may leave out.
    let host = HeaderValue::from_maybe_shared(Bytes::from(original.to_string())).ok();
    listen::service(move |mut request: Request<Incoming>| {
        if request.version() < Version::HTTP_2
            && request.uri().authority().is_none()
            && let Some(host) = &host
        {
            let headers = request.headers_mut();
            headers.entry(header::HOST).or_insert_with(|| host.clone());
        }
        intercept::answer(current.get(), destination.clone(), request)
    })
}

fn refusals(original: SocketAddr) -> impl Service {
    listen::service(move |_| async move {
        let detail = format!(
            "a connection to {original} would come back to this sidecar: either it was not \
             redirected, or the sidecar's own traffic is"
        );
        let mut answer = refuse_loop(&detail);
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
        answer
    })
}
