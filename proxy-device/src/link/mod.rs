//! The link to the edge: one HTTP/2 connection that is kept open.
//!
//! A connection that breaks is made again by the next request. While the edge cannot be reached,
//! requests are told so at once for a growing moment, so that none of them waits for a connection
//! that will not come.

mod connect;
mod counted;

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use sidecod_sidecar::Body;
use sidecod_sidecar::own::Own;
use sidecod_sidecar::tls::TlsError;
use sidecod_sidecar::upstream::BaseUrl;
use sidecod_wire::header::{HTTP2, NO_HOST, PROTOCOL, TOKEN, UPSTREAM};
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::Instant;

use connect::{Connect, Tls};

use crate::config::Edge;
use crate::ingress::destination::Destination;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why a request got no answer over the link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no connection. The request has not been sent and is given back.
    #[error("cannot reach the edge: {reason}")]
    Unreachable {
        /// What the system said.
        reason: String,
        /// The request.
        request: Box<Request<Body>>,
    },
    /// The connection broke after some of the request was sent.
    #[error("the link to the edge broke: {0}")]
    Broken(hyper::Error),
}

/// Why there can be no link.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The token is none that a header can have.
    #[error("token: must be visible ASCII")]
    Token,
    /// A certificate or key cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
}

/// The connection to the edge.
pub struct Link {
    edge: BaseUrl,
    name: Arc<str>,
    token: Option<HeaderValue>,
    connect: Connect,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<SendRequest<Body>>,
    /// No attempt before this time, after one that failed.
    retry_at: Option<Instant>,
    pause: Duration,
}

impl Link {
    /// A link that connects when it is first used.
    ///
    /// # Errors
    /// If the configuration's token cannot stand in a request, or a certificate cannot be used.
    pub fn new(edge: &Edge, own: Own) -> Result<Self, SetUpError> {
        let token = edge
            .token
            .as_ref()
            .map(|token| HeaderValue::from_str(token.secret()))
            .transpose()
            .map_err(|_| SetUpError::Token)?;
        let token = token.map(|mut token| {
            token.set_sensitive(true);
            token
        });
        Ok(Self {
            edge: edge.url.clone(),
            name: edge.url.authority().into(),
            token,
            connect: Connect {
                own,
                limit: Duration::from_millis(edge.connect_timeout_ms),
                tls: Tls::of(edge)?,
            },
            state: Mutex::default(),
        })
    }

    /// The address of the edge that requests are sent to.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Sends a request to the edge, for the upstream of its destination, and waits for the head of
    /// the answer.
    ///
    /// # Errors
    /// [`LinkError`]; an unreachable edge gives the request back.
    pub async fn send(
        &self,
        destination: &Destination,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, LinkError> {
        let mut connection = match self.connection().await {
            Ok(connection) => connection,
            Err(reason) => {
                return Err(LinkError::Unreachable {
                    reason,
                    request: Box::new(request),
                });
            }
        };
        self.address(destination, &mut request);
        connection
            .try_send_request(request)
            .await
            .map_err(|mut error| match error.take_message() {
                Some(request) => LinkError::Unreachable {
                    reason: error.into_error().to_string(),
                    request: Box::new(request),
                },
                None => LinkError::Broken(error.into_error()),
            })
    }

    /// Gives a request the form that it has on the link: HTTP/2, the app's `Host` as authority.
    fn address(&self, destination: &Destination, request: &mut Request<Body>) {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(header::HOST);
        let mut authority = request
            .uri()
            .authority()
            .cloned()
            .or_else(|| Authority::try_from(host?.as_bytes()).ok());
        if authority.is_none() {
            // HTTP/2 wants one; the edge puts the model server's own in its place.
            authority = self.edge.authority().parse().ok();
            let yes = HeaderValue::from_static("1");
            request.headers_mut().insert(NO_HOST, yes);
        }
        let mut uri = request.uri().clone().into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = authority;
        if let Ok(uri) = Uri::from_parts(uri) {
            *request.uri_mut() = uri;
        }
        let headers = request.headers_mut();
        if let Some(upstream) = &destination.upstream {
            headers.insert(UPSTREAM, upstream.clone());
        }
        if destination.version == Version::HTTP_2 {
            headers.insert(PROTOCOL, HeaderValue::from_static(HTTP2));
        }
        if let Some(token) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
    }

    async fn connection(&self) -> Result<SendRequest<Body>, String> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &mut state.connection {
            if connection.ready().await.is_ok() {
                return Ok(connection.clone());
            }
            state.connection = None;
        }
        if let Some(retry_at) = state.retry_at
            && Instant::now() < retry_at
        {
            return Err("the last attempt to connect has just failed".to_owned());
        }
        match self.connect().await {
            Ok(connection) => {
                *state = State {
                    connection: Some(connection.clone()),
                    ..State::default()
                };
                Ok(connection)
            }
            Err(reason) => {
                state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                state.retry_at = Some(Instant::now() + state.pause);
                tracing::warn!(reason, pause = ?state.pause, "cannot reach the edge");
                Err(reason)
            }
        }
    }

    /// Connects to the first address of the edge's name that can be reached.
    async fn connect(&self) -> Result<SendRequest<Body>, String> {
        let name = self.edge.authority();
        let addresses = lookup_host(self.edge.host_and_port()).await;
        let addresses = addresses.map_err(|error| format!("{name}: {error}"))?;
        let mut reason = format!("{name}: the name has no address");
        for address in addresses {
            match self.connect.to(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }
}
