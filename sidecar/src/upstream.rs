//! A model server, as both sidecars call it: HTTP/1.1 over kept-open connections.

use std::time::Duration;

use http::{HeaderValue, Request, Response, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::body::Body;

/// Idle connections are closed after this time, before a server is likely to close them itself.
const IDLE: Duration = Duration::from_secs(4);

/// The base URL of a server, `http://host:port` with a path if need be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Uri);

impl BaseUrl {
    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority().map_or("", http::uri::Authority::as_str)
    }

    /// Host, without brackets, and port, 80 where none is named.
    #[must_use]
    pub fn host_and_port(&self) -> (&str, u16) {
        let host = self.0.host().unwrap_or_default();
        (
            host.trim_start_matches('[').trim_end_matches(']'),
            self.0.port_u16().unwrap_or(80),
        )
    }

    /// The path and query of `target` under this base.
    ///
    /// # Errors
    /// If the two make no path.
    pub fn join(&self, target: &Uri) -> Result<Uri, http::Error> {
        let start = self.0.path().trim_end_matches('/');
        let rest = target
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        let mut parts = self.0.clone().into_parts();
        parts.path_and_query = Some(
            format!("{start}{rest}")
                .parse()
                .map_err(http::Error::from)?,
        );
        Uri::from_parts(parts).map_err(Into::into)
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse::<Uri>() {
            Ok(url)
                if url.scheme_str() == Some("http")
                    && url.host().is_some_and(|host| !host.is_empty())
                    && url.query().is_none() =>
            {
                Ok(Self(url))
            }
            _ => Err(D::Error::custom(format!(
                "`{text}` is no base URL, want http://host:port"
            ))),
        }
    }
}

/// A server and the connections to it.
pub struct Upstream {
    client: Client<HttpConnector, Body>,
    base: BaseUrl,
}

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The request has no target that a server could be asked for.
    #[error("the target of the request: {0}")]
    Target(http::Error),
    /// No connection; nothing has been sent.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// The connection broke before the answer began.
    #[error("{0} broke the connection before it answered: {1}")]
    Broken(String, String),
    /// The answer has not begun in time.
    #[error("{0} has not answered within {1:?}")]
    Timeout(String, Duration),
}

impl Upstream {
    /// A server that is connected to when it is first called.
    #[must_use]
    pub fn new(base: BaseUrl, connect_timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self { client, base }
    }

    /// Sends a request and waits for the head of the answer, at most for `limit`. The request's
    /// authority becomes its `Host`; redirects are answers like others.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn send(
        &self,
        mut request: Request<Body>,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let host = request
            .uri()
            .authority()
            .and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        if let Some(host) = host {
            request.headers_mut().insert(header::HOST, host);
        }
        *request.version_mut() = Version::HTTP_11;
        let body = request.body();
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // Said by name, because hyper drops such a body of a GET.
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
        }
        *request.uri_mut() = self
            .base
            .join(request.uri())
            .map_err(UpstreamError::Target)?;
        let name = || self.base.authority().to_owned();
        let answer = self.client.request(request);
        let answer = match limit {
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .map_err(|_| UpstreamError::Timeout(name(), limit))?,
            None => answer.await,
        };
        answer.map_err(|error| {
            let reason = reason(&error);
            if error.is_connect() {
                UpstreamError::Unreachable(name(), reason)
            } else {
                UpstreamError::Broken(name(), reason)
            }
        })
    }
}

/// The innermost cause, which is what the system said.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> Result<BaseUrl, serde::de::value::Error> {
        BaseUrl::deserialize(serde::de::value::StrDeserializer::new(text))
    }

    #[test]
    fn targets_go_under_the_base() {
        for (url, target, expected) in [
            ("http://m:1", "/a?b=c", "http://m:1/a?b=c"),
            ("http://m:1/v1/", "/a", "http://m:1/v1/a"),
            ("http://m:1/v1", "http://other/a?b", "http://m:1/v1/a?b"),
            ("http://m:1", "http://other", "http://m:1/"),
        ] {
            let joined = base(url).unwrap().join(&target.parse().unwrap()).unwrap();
            assert_eq!(joined.to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for text in ["edge", "https://m", "ftp://m", "/path", "http://m?x=y", ""] {
            let error = base(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("`{text}` is no base URL, want http://host:port")
            );
        }
        assert_eq!(base("http://[::1]:9").unwrap().host_and_port(), ("::1", 9));
    }
}
