//! The link to the edges.
//!
//! Each address of each edge's name has one HTTP/2 connection that is kept open, and a circuit
//! breaker. A request goes to the better of two that are chosen by chance (tower's P2C), by how long
//! each has taken lately and how many requests it has in hand. While none can be used, requests are
//! told so at once, so that none of them waits for a connection that will not come.

mod breaker;
mod connect;
mod counted;
mod edge;
mod names;
mod pace;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use sidecod_sidecar::Body;
use sidecod_sidecar::own::Own;
use sidecod_sidecar::tls::TlsError;
use sidecod_sidecar::upstream::BaseUrl;
use sidecod_wire::header::{DEADLINE, HTTP2, NO_HOST, PROTOCOL, TOKEN, UPSTREAM};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tower::Service;
use tower::balance::p2c::Balance;

use connect::Connect;
use edge::Call;
use names::{Changes, Known, Names};

use crate::config::Edge;
use crate::ingress::destination::Destination;

/// Time that an edge is told less than there is, for its own answer to come back.
const WAY_BACK: Duration = Duration::from_millis(500);

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
    /// The head of the answer has not come in time.
    #[error("no answer from the edge within {:.1} s", .0.as_secs_f64())]
    Timeout(Duration),
}

impl LinkError {
    fn unreachable(reason: String, request: Box<Request<Body>>) -> Self {
        Self::Unreachable { reason, request }
    }
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

/// The address of the edge that an answer is of: an extension of the answer.
#[derive(Debug, Clone)]
pub struct Via(pub Arc<str>);

/// Whether a link could be made of a configuration.
///
/// # Errors
/// As [`Link::new`].
pub fn check(edge: &Edge) -> Result<(), SetUpError> {
    Connect::new(edge, Own::default()).map(drop)
}

/// An answer on its way.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Incoming>, LinkError>> + Send>>;

/// The connections to all edges.
pub struct Link {
    /// What a request is for that names no host.
    edge: BaseUrl,
    token: Option<HeaderValue>,
    /// How long a request waits for a connection that is being made.
    patience: Duration,
    balance: Mutex<Balance<Changes, Call>>,
    known: Arc<Known>,
    changes: watch::Receiver<()>,
    _resolving: JoinSet<()>,
}

impl Link {
    /// Begins to connect. Call it inside a runtime.
    ///
    /// # Errors
    /// If the configuration's token cannot stand in a request, or a certificate cannot be used.
    pub fn new(edge: &Edge, own: Own) -> Result<Self, SetUpError> {
        let connect = Connect::new(edge, own)?;
        let (token, patience) = (connect.token.clone(), connect.limit);
        let (tell, changes) = watch::channel(());
        let known = Arc::new(Known::default());
        let (names, found) = Names::new(
            edge.url.all().cloned().collect(),
            connect,
            known.clone(),
            tell,
        );
        let mut resolving = JoinSet::new();
        resolving.spawn(names.keep());
        Ok(Self {
            edge: edge.url.first().clone(),
            token,
            patience,
            balance: Mutex::new(Balance::new(found)),
            known,
            changes,
            _resolving: resolving,
        })
    }

    /// The address of the edge that the next request is likely to go to: of those that can be used the
    /// one that answered last. Before any is known, what the first is called in the configuration.
    #[must_use]
    pub fn likely(&self) -> Arc<str> {
        let unknown = || self.edge.authority().into();
        self.known.likely().unwrap_or_else(unknown)
    }

    /// Sends a request to an edge, for the upstream of its destination, and waits for the head of
    /// the answer, at most for `limit`, which the edge is told. The answer says [`Via`].
    ///
    /// # Errors
    /// [`LinkError`]; where no edge can be reached the request is given back.
    pub async fn send(
        &self,
        destination: &Destination,
        mut request: Box<Request<Body>>,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, LinkError> {
        let begin = Instant::now();
        let patience = begin + limit.map_or(self.patience, |limit| limit.min(self.patience));
        let mut changes = self.changes.clone();
        let give_up = |reason: String, request| Err(LinkError::unreachable(reason, request));
        loop {
            let limit = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
            let mut waiting = Some(request);
            let answer = tokio::select! {
                biased;
                answer = poll_fn(|context| self.dispatch(context, destination, &mut waiting, limit)) => answer,
                reason = poll_fn(|_| self.all_down()) => Err(reason),
                _ = changes.changed() => Ok(None),
                () = sleep_until(patience) => Err("no connection yet".to_owned()),
            };
            request = match (answer, waiting) {
                (Ok(Some(answer)), _) => match answer.await {
                    // It was not sent: another edge may have it.
                    Err(LinkError::Unreachable { reason, request }) => {
                        let request = unaddressed(request);
                        if Instant::now() >= patience {
                            return give_up(reason, request);
                        }
                        request
                    }
                    outcome => return outcome,
                },
                (Ok(None), Some(request)) => request,
                (Err(reason), Some(request)) => return give_up(reason, request),
                // Only a dispatch takes it.
                (_, None) => return Err(LinkError::Timeout(begin.elapsed())),
            };
        }
    }

    /// Hands the request to an edge as soon as one can take it.
    fn dispatch(
        &self,
        context: &mut Context<'_>,
        destination: &Destination,
        waiting: &mut Option<Box<Request<Body>>>,
        limit: Option<Duration>,
    ) -> Poll<Result<Option<Answer>, String>> {
        let mut balance = self.balance.lock().unwrap_or_else(PoisonError::into_inner);
        match ready!(balance.poll_ready(context)) {
            Ok(()) => {}
            Err(error) => return Poll::Ready(Err(error.to_string())),
        }
        let Some(mut request) = waiting.take() else {
            return Poll::Pending;
        };
        self.address(destination, &mut request, limit);
        let answer = balance.call(Call { request, limit });
        Poll::Ready(Ok(Some(Box::pin(async move {
            match answer.await {
                Ok(answer) => answer,
                // Edges give failures as answers.
                Err(error) => match error.downcast::<Infallible>() {
                    Ok(never) => match *never {},
                    Err(_) => Err(LinkError::Timeout(Duration::ZERO)),
                },
            }
        }))))
    }

    fn all_down(&self) -> Poll<String> {
        self.known.all_down().map_or(Poll::Pending, Poll::Ready)
    }

    /// Gives a request the form that it has on the link: HTTP/2, the app's `Host` as authority.
    fn address(
        &self,
        destination: &Destination,
        request: &mut Request<Body>,
        limit: Option<Duration>,
    ) {
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
        if let Some(limit) = limit {
            let told = limit.saturating_sub((limit / 10).min(WAY_BACK));
            let told = u64::try_from(told.as_millis()).unwrap_or(u64::MAX);
            let mut told = HeaderValue::from(told);
            // Of no use to the requests that follow: HTTP/2 is not to keep it for them.
            told.set_sensitive(true);
            headers.insert(DEADLINE, told);
        }
    }
}

/// Takes back what a request has on the link for want of a host of its own.
fn unaddressed(mut request: Box<Request<Body>>) -> Box<Request<Body>> {
    if request.headers_mut().remove(NO_HOST).is_some() {
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        (uri.scheme, uri.authority) = (None, None);
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    }
    request
}
