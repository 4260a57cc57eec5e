//! The model servers on the list: the only ones that are ever called.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use metrics::Counter;
use sidecod_sidecar::connect::Connector;
use sidecod_sidecar::metrics::Handles;
use sidecod_sidecar::own::Own;
use sidecod_sidecar::{Body, upstream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::UpstreamConfig;
use crate::fail::Fail;

/// A model server that requests may go to.
pub struct Upstream {
    /// The name that devices ask for.
    pub name: String,
    /// Its requests, by what came of them.
    pub requests: Handles<Counter>,
    server: upstream::Upstream,
    timeout: Duration,
    turns: Arc<Semaphore>,
    max_wait: Duration,
}

/// A request's turn at a model server, until it is dropped.
pub type Turn = OwnedSemaphorePermit;

/// All of them.
pub struct Upstreams(HashMap<String, Upstream>);

/// The requests for a model server, by what came of them.
#[must_use]
pub fn requests(upstream: &str) -> Handles<Counter> {
    let upstream = upstream.to_owned();
    Handles::new(move |outcome| {
        let upstream = upstream.clone();
        metrics::counter!("sidecod_edge_requests_total", "upstream" => upstream, "outcome" => outcome)
    })
}

impl Upstreams {
    /// The model servers of a configuration.
    #[must_use]
    pub fn new(list: &[UpstreamConfig]) -> Self {
        let known = |config: &UpstreamConfig| {
            let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
            let connector = Connector::new(connect_timeout, Own::default());
            let upstream = Upstream {
                name: config.name.clone(),
                requests: requests(&config.name),
                server: upstream::Upstream::new(config.url.clone(), connector),
                timeout: Duration::from_millis(config.timeout_ms),
                turns: Arc::new(Semaphore::new(config.max_in_flight)),
                max_wait: Duration::from_millis(config.max_wait_ms),
            };
            (config.name.clone(), upstream)
        };
        Self(list.iter().map(known).collect())
    }

    /// The model server of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Upstream> {
        self.0.get(name)
    }
}

impl Upstream {
    /// Waits for a turn, before anything is done for the request that would be in vain.
    ///
    /// # Errors
    /// [`Fail::Busy`].
    pub async fn turn(&self) -> Result<Turn, Fail> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let turn = self.turns.clone().acquire_owned();
        match timeout(self.max_wait, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Fail::Busy(self.name.clone(), self.max_wait)),
        }
    }

    /// Sends a request and waits for the head of the answer, no longer than its own limit and the
    /// device's. Dropping the future, or the answer's body, ends the call.
    ///
    /// # Errors
    /// [`Fail::Upstream`].
    pub async fn call(
        &self,
        request: Request<Body>,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, Fail> {
        let limit = limit.map_or(self.timeout, |limit| limit.min(self.timeout));
        self.server
            .send(request, Some(limit))
            .await
            .map_err(|error| Fail::Upstream(self.name.clone(), error))
    }
}
