//! The model servers on the list: the only ones that are ever called.

use std::collections::HashMap;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use sidecod_sidecar::connect::Connector;
use sidecod_sidecar::own::Own;
use sidecod_sidecar::{Body, upstream};

use crate::config::UpstreamConfig;
use crate::fail::Fail;

/// A model server that requests may go to.
pub struct Upstream {
    /// The name that devices ask for.
    pub name: String,
    server: upstream::Upstream,
    timeout: Duration,
}

/// All of them.
pub struct Upstreams(HashMap<String, Upstream>);

impl Upstreams {
    /// The model servers of a configuration.
    #[must_use]
    pub fn new(list: &[UpstreamConfig]) -> Self {
        let known = |config: &UpstreamConfig| {
            let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
            let connector = Connector::new(connect_timeout, Own::default());
            let upstream = Upstream {
                name: config.name.clone(),
                server: upstream::Upstream::new(config.url.clone(), connector),
                timeout: Duration::from_millis(config.timeout_ms),
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
    /// Sends a request and waits for the head of the answer. Dropping the future, or the answer's
    /// body, ends the call.
    ///
    /// # Errors
    /// [`Fail::Upstream`].
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Incoming>, Fail> {
        self.server
            .send(request, Some(self.timeout))
            .await
            .map_err(|error| Fail::Upstream(self.name.clone(), error))
    }
}
