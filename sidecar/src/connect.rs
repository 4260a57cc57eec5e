//! Connections for hyper's client: each is noted as this process' own, and none leads back to it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tower::Service;

use crate::body::BoxError;
use crate::own::{Made, Own};

/// Connects to the server that a URI names.
#[derive(Debug, Clone)]
pub struct Connector {
    http: HttpConnector,
    own: Own,
    /// The server that is connected to whatever the URI names.
    only: Option<Uri>,
}

impl Connector {
    /// A connector that gives up after `timeout`.
    #[must_use]
    pub fn new(timeout: Duration, own: Own) -> Self {
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(timeout));
        Self {
            http,
            own,
            only: None,
        }
    }

    /// The same to one server: HTTP/2 says in the URI what the app asked for, which need not be the
    /// name of the server that is connected to.
    #[must_use]
    pub fn only(&self, server: Uri) -> Self {
        Self {
            only: Some(server),
            ..self.clone()
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Made>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Made>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.http.call(self.only.clone().unwrap_or(uri));
        let own = self.own.clone();
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            Ok(TokioIo::new(own.note(stream)?))
        })
    }
}
