//! What the edge says of itself: its description, and the files of its bundles that devices need.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use sidecod_sidecar::problem::problem;
use sidecod_sidecar::{Body, body};
use sidecod_wire::bundle::Digest;
use sidecod_wire::describe::{Description, Offer, PATH, parse_file_path};
use sidecod_wire::header::UPSTREAM;

use crate::bundles::Stored;
use crate::config::UpstreamConfig;

/// The answers.
#[derive(Clone)]
pub struct About {
    offers: Arc<[Offer]>,
    files: Arc<HashMap<(Digest, &'static str), Bytes>>,
    description: Bytes,
}

impl About {
    /// Describes an edge with these bundles and upstreams.
    #[must_use]
    pub fn new(stored: &[Stored], upstreams: &[UpstreamConfig]) -> Self {
        let offered = || stored.iter().filter(|stored| !stored.files.is_empty());
        let files = offered().flat_map(|stored| {
            let file = |(name, bytes): &(_, Bytes)| ((stored.bundle.digest, *name), bytes.clone());
            stored.files.iter().map(file)
        });
        Self {
            files: Arc::new(files.collect()),
            offers: offered().map(|stored| Offer::of(&stored.bundle)).collect(),
            description: Bytes::new(),
        }
        .with(upstreams)
    }

    /// The same with other upstreams.
    #[must_use]
    pub fn with(&self, upstreams: &[UpstreamConfig]) -> Self {
        let description = Description {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bundles: self.offers.to_vec(),
            upstreams: upstreams
                .iter()
                .map(|upstream| upstream.name.clone())
                .collect(),
        };
        Self {
            // Strings and lists always are JSON.
            description: serde_json::to_vec(&description).unwrap_or_default().into(),
            ..self.clone()
        }
    }

    /// The answer to a request that is for the edge itself; none for all others.
    #[must_use]
    pub fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let path = request.uri().path();
        let rest = path.strip_prefix(PATH)?;
        if !(rest.is_empty() || rest.starts_with('/')) || request.headers().contains_key(UPSTREAM) {
            return None;
        }
        if request.method() != Method::GET {
            let detail = format!("{PATH} is only there to be read");
            return Some(problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "bad-request",
                &detail,
            ));
        }
        let (content_type, bytes) = if rest.is_empty() {
            ("application/json", &self.description)
        } else {
            let file = parse_file_path(path).and_then(|(digest, name)| {
                let mut files = self.files.iter();
                files.find(|((bundle, file), _)| *bundle == digest && *file == name)
            });
            let Some((_, bytes)) = file else {
                let detail = "no such file of a bundle that is decoded here";
                return Some(problem(StatusCode::NOT_FOUND, "unknown-bundle", detail));
            };
            ("application/octet-stream", bytes)
        };
        let mut answer = Response::new(body::full(bytes.clone()));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(answer)
    }
}
