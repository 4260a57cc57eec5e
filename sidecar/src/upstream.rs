//! A model server, as both sidecars call it: over kept-open connections, in HTTP/1.1, or in HTTP/2
//! where the app has spoken that without being asked to.

use std::sync::OnceLock;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::body::Body;
use crate::connect::Connector;
use crate::own::ConnectError;

/// Idle connections are closed after this time, before a server is likely to close them itself.
const IDLE: Duration = Duration::from_secs(4);

/// The base URL of a server, `http://host:port` with a path if need be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Uri);

impl BaseUrl {
    /// The root of a server.
    ///
    /// # Errors
    /// If the authority is not one that a URL can have.
    pub fn of(authority: &Authority) -> Result<Self, http::Error> {
        let root = Uri::builder().scheme("http").authority(authority.as_str());
        root.path_and_query("/").build().map(Self)
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority().map_or("", Authority::as_str)
    }

    /// Whether it is an https URL, which only [`BaseUrl::http_or_https`] makes.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Host, without brackets, and port, that of the scheme where none is named.
    #[must_use]
    pub fn host_and_port(&self) -> (&str, u16) {
        let host = self.0.host().unwrap_or_default();
        let port = if self.is_https() { 443 } else { 80 };
        (
            host.trim_start_matches('[').trim_end_matches(']'),
            self.0.port_u16().unwrap_or(port),
        )
    }

    /// Reads a URL that may be encrypted.
    ///
    /// # Errors
    /// If it is no base URL.
    pub fn http_or_https<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer, &["http", "https"])
    }

    fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        schemes: &[&str],
    ) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse::<Uri>() {
            Ok(url)
                if url
                    .scheme_str()
                    .is_some_and(|scheme| schemes.contains(&scheme))
                    && url.host().is_some_and(|host| !host.is_empty())
                    && url.query().is_none() =>
            {
                Ok(Self(url))
            }
            _ => Err(D::Error::custom(format!(
                "`{text}` is no base URL, want {}://host:port",
                schemes.join(":// or ")
            ))),
        }
    }

    /// The path and query of `target` under this base.
    ///
    /// # Errors
    /// If the two make no path.
    pub fn join(&self, target: &Uri) -> Result<Uri, http::Error> {
        let start = self.0.path().trim_end_matches('/');
        let rest = target.path_and_query();
        let mut parts = self.0.clone().into_parts();
        parts.path_and_query = Some(match rest {
            Some(rest) if start.is_empty() => rest.clone(),
            _ => format!("{start}{}", rest.map_or("/", PathAndQuery::as_str))
                .parse()
                .map_err(http::Error::from)?,
        });
        Uri::from_parts(parts).map_err(Into::into)
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer, &["http"])
    }
}

/// A server and the connections to it.
pub struct Upstream {
    base: BaseUrl,
    connector: Connector,
    http1: Client<Connector, Body>,
    http2: OnceLock<Client<Connector, Body>>,
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
    /// The server is the one that asks.
    #[error("the request would come back to this sidecar: {0}")]
    Loop(String),
}

impl Upstream {
    /// A server that is connected to when it is first called.
    #[must_use]
    pub fn new(base: BaseUrl, connector: Connector) -> Self {
        Self {
            base,
            http1: builder().build(connector.clone()),
            http2: OnceLock::new(),
            connector,
        }
    }

    /// Another server, whose HTTP/1.1 connections are kept in the same pool.
    #[must_use]
    pub fn to(&self, base: BaseUrl) -> Self {
        Self {
            base,
            connector: self.connector.clone(),
            http1: self.http1.clone(),
            http2: OnceLock::new(),
        }
    }

    /// Sends a request and waits for the head of the answer, at most for `limit`. A request of
    /// version HTTP/2 is sent in that version, every other one in HTTP/1.1. The request's authority
    /// becomes its `Host`; redirects are answers like others.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn send(
        &self,
        request: Request<Body>,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let name = || self.base.authority().to_owned();
        let answer = if request.version() == Version::HTTP_2 {
            let http2 = self.http2.get_or_init(|| {
                let connector = self.connector.only(self.base.0.clone());
                builder().http2_only(true).build(connector)
            });
            http2.request(self.in_http2(request)?)
        } else {
            self.http1.request(self.in_http1(request)?)
        };
        let answer = match limit {
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .map_err(|_| UpstreamError::Timeout(name(), limit))?,
            None => answer.await,
        };
        answer.map_err(|error| {
            let cause = innermost(&error);
            let reason = cause.to_string();
            if let Some(ConnectError::Loop(_)) = cause.downcast_ref() {
                UpstreamError::Loop(reason)
            } else if error.is_connect() {
                UpstreamError::Unreachable(name(), reason)
            } else {
                UpstreamError::Broken(name(), reason)
            }
        })
    }

    fn in_http1(&self, mut request: Request<Body>) -> Result<Request<Body>, UpstreamError> {
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
            request
                .headers_mut()
                .insert(header::TRANSFER_ENCODING, chunked);
        }
        *request.uri_mut() = self
            .base
            .join(request.uri())
            .map_err(UpstreamError::Target)?;
        Ok(request)
    }

    /// In HTTP/2 the authority stands in the target, and no field belongs to one hop
    /// (RFC 9113, 8.2.2 and 8.3.1).
    fn in_http2(&self, mut request: Request<Body>) -> Result<Request<Body>, UpstreamError> {
        request.headers_mut().remove(header::CONNECTION);
        let host = request.headers_mut().remove(header::HOST);
        let authority = request
            .uri()
            .authority()
            .cloned()
            .or_else(|| Authority::try_from(host?.as_bytes()).ok());
        let target = self
            .base
            .join(request.uri())
            .map_err(UpstreamError::Target)?;
        let mut parts = target.into_parts();
        parts.authority = authority.or(parts.authority);
        *request.uri_mut() =
            Uri::from_parts(parts).map_err(|error| UpstreamError::Target(error.into()))?;
        Ok(request)
    }
}

fn builder() -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE);
    builder
}

/// The innermost cause, which is what the system said.
fn innermost<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> &'e (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
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
