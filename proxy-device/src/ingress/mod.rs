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

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Response, StatusCode};
use sidecod_sidecar::Body;
use sidecod_sidecar::listen::{Connections, Http, Place};
use sidecod_sidecar::problem::problem;
use sidecod_sidecar::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};

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
            Way::Reverse => {
                let service = reverse::service(self.current);
                let none = Bytes::new();
                self.http
                    .http1(none, stream, service, self.shutdown, place)
                    .await;
            }
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
