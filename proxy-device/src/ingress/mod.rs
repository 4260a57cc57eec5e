//! The ways in: how an app's requests find this sidecar, and where each of them goes.
//!
//! - [`reverse`]: the app's base URL names this sidecar, and all requests go to one model server.
//! - [`forward`]: the app's `HTTP_PROXY` names it, and each request names its own destination.
//! - [`transparent`]: the system redirects the app's connections, and says where they were to go.
//!
//! Each gives [`crate::intercept`] requests together with their [`destination::Destination`]. What
//! is no HTTP goes on through a [`tunnel`].

pub mod destination;
pub mod detect;
pub mod forward;
pub mod reverse;
pub mod transparent;
pub mod tunnel;

use std::io::Cursor;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Response, StatusCode};
use sidecod_sidecar::Body;
use sidecod_sidecar::listen::{Connections, Http, Place, Service};
use sidecod_sidecar::problem::problem;
use sidecod_sidecar::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use self::detect::Protocol;
use crate::reload::Current;

/// How an app finds a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By its base URL.
    Reverse,
    /// By `HTTP_PROXY`.
    Forward,
    /// Not at all: it is redirected.
    Transparent,
}

impl Way {
    /// Its name in the configuration, in metrics and on standard output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reverse => "reverse",
            Self::Forward => "forward",
            Self::Transparent => "transparent",
        }
    }
}

/// What the listeners share.
#[derive(Clone)]
pub struct Ingress {
    pub(crate) current: Current,
    pub(crate) http: Http,
    pub(crate) shutdown: Shutdown,
}

impl Ingress {
    /// The ways into an app's sidecar.
    #[must_use]
    pub fn new(current: impl Into<Current>, http: Http, shutdown: Shutdown) -> Self {
        Self {
            current: current.into(),
            http,
            shutdown,
        }
    }

    /// Serves a listener until the shutdown, then waits for the connections of all.
    pub async fn serve(self, way: Way, listener: TcpListener, connections: Connections) {
        let shutdown = self.shutdown.clone();
        let serve = move |stream, peer, place| self.clone().connection(way, stream, peer, place);
        connections.serve(listener, shutdown, serve).await;
    }

    async fn connection(self, way: Way, stream: TcpStream, peer: SocketAddr, place: Place) {
        match way {
            Way::Reverse => reverse::serve(self, stream, place).await,
            Way::Forward => {
                let service = forward::service(self.current, place.clone());
                let none = Bytes::new();
                self.http
                    .http1(none, stream, service, self.shutdown, place)
                    .await;
            }
            Way::Transparent => transparent::serve(self, stream, peer, place).await,
        }
    }

    /// Serves a connection of HTTP, from which `first` has been read already, to its end.
    async fn http(
        self,
        protocol: Protocol,
        first: Bytes,
        stream: TcpStream,
        service: impl Service,
        place: Place,
    ) {
        let Self { http, shutdown, .. } = self;
        if protocol == Protocol::Http2 {
            http.http2(replay(first, stream), service, shutdown, place)
                .await;
        } else {
            http.http1(first, stream, service, shutdown, place).await;
        }
    }
}

/// A stream whose first bytes have been read already.
fn replay(first: Bytes, stream: TcpStream) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    let (read, write) = stream.into_split();
    tokio::io::join(Cursor::new(first).chain(read), write)
}

/// Refuses a request that would come back to this sidecar.
fn refuse_loop(detail: &str) -> Response<Body> {
    count_loop();
    problem(StatusCode::LOOP_DETECTED, "loop", detail)
}

/// Counts a request or a connection that was refused because it would come back to this sidecar.
pub(crate) fn count_loop() {
    metrics::counter!("sidecod_device_loops_total").increment(1);
}
