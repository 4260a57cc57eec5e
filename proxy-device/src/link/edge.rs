//! One edge at one address: its connection, its breaker, and the task that keeps them.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use sidecod_sidecar::Body;
use sidecod_sidecar::upstream::BaseUrl;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tower::Service;

use super::breaker::Breaker;
use super::connect::{Connect, NOT_READY, Sender};
use super::{LinkError, Via};
use crate::relay::edge_error;

/// A request for an edge.
pub(super) struct Call {
    pub request: Box<Request<Body>>,
    /// When the head of the answer must be there.
    pub limit: Option<Duration>,
}

/// What is known of an edge.
pub(super) struct Edge {
    /// What it is called in the configuration.
    url: BaseUrl,
    address: SocketAddr,
    /// The address in text.
    name: Arc<str>,
    state: Mutex<State>,
    /// The connection is of no use any more.
    given_up: Notify,
    /// Tells whoever waits for an edge.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    sender: Option<Sender>,
    /// Which connection it is, counted from 1.
    generation: u64,
    breaker: Breaker,
    /// When it last answered a request.
    answered: Option<Instant>,
    /// Why the last attempt to use it came to nothing; none while one is under way or it is up.
    down: Option<String>,
    waker: Option<Waker>,
}

impl Edge {
    fn new(url: BaseUrl, address: SocketAddr, changes: watch::Sender<()>) -> Self {
        Self {
            url,
            address,
            name: address.to_string().into(),
            state: Mutex::default(),
            given_up: Notify::new(),
            changes,
        }
    }

    /// Why it cannot be used; none if it can, or is being connected to for the first time.
    pub fn down(&self) -> Option<String> {
        self.lock().down.clone()
    }

    /// When it last answered a request.
    pub fn answered(&self) -> Option<Instant> {
        self.lock().answered
    }

    /// Its address.
    pub fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.lock();
            let (seen, was_open) = (state.seen(), state.breaker.is_open());
            let known = state.down.clone().filter(|_| was_open);
            change(&mut state);
            if state.breaker.is_open() {
                state.sender = None;
                let edge = self.address.to_string();
                if known != state.down {
                    let reason = &state.down;
                    tracing::warn!(edge, reason, "the edge is left out until it answers again");
                }
                if !was_open {
                    metrics::counter!("sidecod_device_edge_opened_total", "edge" => edge)
                        .increment(1);
                }
            }
            if state.seen() == seen {
                return;
            }
            let (was_up, is_up) = (seen.up, state.sender.is_some());
            self.gauge().increment(count(is_up) - count(was_up));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.changes.send_replace(());
    }

    fn up(&self, sender: Sender) {
        self.change(|state| {
            state.sender = Some(sender);
            state.generation += 1;
            state.down = None;
            state.breaker.probed();
        });
    }

    /// A connection has ended, which the next one is made after at once. A failure that took requests
    /// with it counts once, however many they were.
    fn lost(&self, generation: u64, failure: Option<String>) {
        self.change(|state| {
            if state.generation == generation && state.sender.take().is_some() {
                if let Some(reason) = failure {
                    state.fail(reason);
                }
                self.given_up.notify_one();
            }
        });
    }

    /// A request got no answer over a connection that seems to live.
    fn failed(&self, generation: u64, reason: String) {
        self.change(|state| {
            if state.generation == generation {
                state.fail(reason);
                self.given_up.notify_one();
            }
        });
    }

    fn trip(&self, reason: String) {
        self.change(|state| {
            state.breaker.trip();
            state.down = Some(reason);
        });
        self.given_up.notify_one();
    }

    /// Keeps a connection as long as the edge is listed.
    async fn keep(self: Arc<Self>, connect: Connect) {
        let mut probing = false;
        loop {
            match connect.to(&self.url, self.address, probing).await {
                Ok((sender, ended)) => {
                    tracing::info!(edge = %self.address, "connected");
                    self.up(sender);
                    self.until_given_up(ended).await;
                }
                Err(reason) => self.trip(reason),
            }
            // A first connection that was made says enough; later ones come after something went wrong.
            probing = true;
            let pause = self.lock().breaker.pause();
            sleep(spread(pause)).await;
        }
    }

    async fn until_given_up(&self, mut ended: JoinHandle<()>) {
        // Being told may be old news.
        while self.lock().sender.is_some() {
            tokio::select! {
                _ = &mut ended => self.change(|state| state.sender = None),
                () = self.given_up.notified() => {}
            }
        }
    }

    fn gauge(&self) -> metrics::Gauge {
        metrics::gauge!("sidecod_device_edge_up", "edge" => self.address.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What others can see of a state.
#[derive(PartialEq, Eq)]
struct Seen {
    up: bool,
    down: bool,
    admits: bool,
    generation: u64,
}

impl State {
    /// What others can see of it.
    fn seen(&self) -> Seen {
        Seen {
            up: self.sender.is_some(),
            down: self.down.is_some(),
            admits: self.breaker.admits(),
            generation: self.generation,
        }
    }

    fn fail(&mut self, reason: String) {
        self.breaker.failed();
        if self.breaker.is_open() {
            self.down = Some(reason);
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let is_up = self.lock().sender.is_some();
        self.gauge().decrement(count(is_up));
    }
}

/// What a connection adds to the gauge, which two links share while a reload puts one in the other's
/// place.
fn count(is_up: bool) -> f64 {
    f64::from(u8::from(is_up))
}

/// Half of a pause to all of it, by chance, so that many devices do not come back at one time.
fn spread(pause: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish() as u32;
    pause.mul_f64(0.5 + f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

/// An edge as a service that is ready while it has a connection and its breaker admits. Dropping it
/// ends the task that keeps the connection.
pub(super) struct Endpoint {
    edge: Arc<Edge>,
    _keeping: JoinSet<()>,
}

impl Endpoint {
    /// Begins to connect.
    pub fn start(
        url: BaseUrl,
        address: SocketAddr,
        connect: Connect,
        changes: watch::Sender<()>,
    ) -> Self {
        let edge = Arc::new(Edge::new(url, address, changes));
        let mut keeping = JoinSet::new();
        keeping.spawn(edge.clone().keep(connect));
        Self {
            edge,
            _keeping: keeping,
        }
    }

    /// What is known of it.
    pub fn edge(&self) -> Arc<Edge> {
        self.edge.clone()
    }
}

impl Service<Call> for Endpoint {
    // A failure is a response, so that the balancer gives it back as what it is.
    type Response = Result<Response<Incoming>, LinkError>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let mut state = self.edge.lock();
        if state.sender.is_some() && state.breaker.admits() {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let (sender, generation) = {
            let mut state = self.edge.lock();
            state.breaker.begin();
            (state.sender.clone(), state.generation)
        };
        let trial = Trial {
            edge: self.edge.clone(),
            generation,
            decided: false,
        };
        Box::pin(async move { Ok(trial.run(sender, call).await) })
    }
}

/// A request on its way, whose outcome the breaker is told.
struct Trial {
    edge: Arc<Edge>,
    /// Of the connection that it goes over.
    generation: u64,
    decided: bool,
}

impl Trial {
    async fn run(
        mut self,
        sender: Option<Sender>,
        Call { request, limit }: Call,
    ) -> Result<Response<Incoming>, LinkError> {
        let Some(mut sender) = sender else {
            let reason = "the connection has just ended".to_owned();
            return Err(LinkError::unreachable(reason, request));
        };
        let answer = sender.send(*request);
        let answer = match limit {
            Some(limit) => timeout(limit, answer).await,
            None => Ok(answer.await),
        };
        let name = self.edge.address;
        match answer {
            Ok(Ok(mut answer)) => {
                self.decided = true;
                answer.extensions_mut().insert(Via(self.edge.name()));
                if edge_error(&answer).is_some_and(|kind| kind == NOT_READY) {
                    self.edge.trip(format!("{name}: not ready"));
                } else {
                    self.edge.change(|state| {
                        state.answered = Some(Instant::now());
                        state.breaker.succeeded();
                    });
                }
                Ok(answer)
            }
            Ok(Err((Some(request), error))) => {
                self.edge.lost(self.generation, None);
                let reason = format!("{name}: {error}");
                Err(LinkError::unreachable(reason, Box::new(request)))
            }
            Ok(Err((None, error))) => {
                self.decided = true;
                let reason = format!("{name}: {error}");
                self.edge.lost(self.generation, Some(reason));
                Err(LinkError::Broken(error))
            }
            Err(_) => {
                self.decided = true;
                let reason = format!("{name}: no answer in time");
                self.edge.failed(self.generation, reason);
                Err(LinkError::Timeout(limit.unwrap_or_default()))
            }
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.decided {
            self.edge.change(|state| state.breaker.abandoned());
        }
    }
}
