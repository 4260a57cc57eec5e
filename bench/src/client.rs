//! A plain HTTP/1.1 client, as an app has one, and a reader of Prometheus counters.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Sends requests over kept-open connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
}

impl Default for Client {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            pool: Pool::builder(TokioExecutor::new()).build(connector),
        }
    }
}

impl Client {
    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// If there is no answer, or it breaks off.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let uri = parts.uri.clone();
        let request = Request::from_parts(parts, Full::new(body));
        let answer = self
            .pool
            .request(request)
            .await
            .with_context(|| format!("no answer from {uri}"))?;
        let (parts, body) = answer.into_parts();
        let body = body
            .collect()
            .await
            .with_context(|| format!("the answer of {uri} broke off"))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    /// POSTs a body of the given type.
    ///
    /// # Errors
    /// If the URL is not one, or as [`Client::send`].
    pub async fn post(
        &self,
        url: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>> {
        let request = Request::post(url)
            .header(http::header::CONTENT_TYPE, content_type)
            .body(body)?;
        self.send(request).await
    }

    /// GETs a URL.
    ///
    /// # Errors
    /// If the URL is not one, or as [`Client::send`].
    pub async fn get(&self, url: &str) -> Result<Response<Bytes>> {
        self.send(Request::get(url).body(Bytes::new())?).await
    }

    /// The sum of all series of a metric whose labels contain every one of `labels`
    /// (such as `direction="sent"`), read from a Prometheus page.
    ///
    /// # Errors
    /// If the page cannot be read.
    pub async fn metric(&self, page: &str, name: &str, labels: &[&str]) -> Result<f64> {
        let answer = self.get(page).await?;
        ensure!(
            answer.status().is_success(),
            "{page} answers {}",
            answer.status()
        );
        let text = String::from_utf8_lossy(answer.body());
        Ok(text
            .lines()
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (found, rest) = series.split_once('{').unwrap_or((series, ""));
                (found == name && labels.iter().all(|label| rest.contains(label)))
                    .then(|| value.parse::<f64>().ok())?
            })
            .sum())
    }
}
