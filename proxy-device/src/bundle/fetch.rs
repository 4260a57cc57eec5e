//! What the edge says of itself, and the files of its bundles.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use sidecod_sidecar::body;
use sidecod_wire::bundle::{BundleError, Digest, Domain, ENCODER, MANIFEST, Manifest, TABLES};
use sidecod_wire::describe::{Description, Offer, PATH, file_path};
use sidecod_wire::header::ERROR;
use tokio::time::timeout;

use super::files::{Files, FilesError, MOST};
use crate::ingress::destination::Destination;
use crate::link::Link;

/// Bytes of a description.
const MOST_DESCRIPTION: usize = 1 << 20;
/// Time for one answer. The largest file crosses a link of 1 Mbit/s in it.
const LIMIT: Duration = Duration::from_mins(10);

/// Why the edge's bundle is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer.
    #[error("{0}")]
    Link(String),
    /// An answer that says no.
    #[error("the edge answered {0} to {1}{2}")]
    Refused(StatusCode, String, String),
    /// The answer broke off, or is larger than it may be.
    #[error("{what}: {reason}")]
    Body {
        /// What was asked for.
        what: String,
        /// Why it is not whole.
        reason: String,
    },
    /// The description is none.
    #[error("what answers at the edge's URL is no proxy-edge of this version: {0}")]
    Description(String),
    /// The edge offers no codec that is wanted.
    #[error("the edge offers {offered}, and no {wanted}")]
    NotOffered {
        /// What it offers.
        offered: String,
        /// What is wanted.
        wanted: String,
    },
    /// The manifest is damaged, or a file too large.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file is not the one that was asked for.
    #[error(transparent)]
    Files(#[from] FilesError),
}

/// Asks the edge what it is.
///
/// # Errors
/// [`FetchError`].
pub async fn describe(link: &Link) -> Result<Description, FetchError> {
    let json = get(link, PATH, MOST_DESCRIPTION).await?;
    serde_json::from_slice(&json).map_err(|error| FetchError::Description(error.to_string()))
}

/// The photo codec of this name that the edge offers; without a name, the first.
///
/// # Errors
/// [`FetchError::NotOffered`].
pub fn choose<'d>(
    description: &'d Description,
    name: Option<&str>,
) -> Result<&'d Offer, FetchError> {
    let mut offers = description.bundles.iter();
    let wanted = |offer: &&Offer| {
        offer.domain == Domain::Image && name.is_none_or(|name| offer.name == name)
    };
    offers.find(wanted).ok_or_else(|| {
        let names: Vec<_> = description
            .bundles
            .iter()
            .map(|offer| &offer.name[..])
            .collect();
        FetchError::NotOffered {
            offered: if names.is_empty() {
                "nothing".to_owned()
            } else {
                names.join(", ")
            },
            wanted: name.unwrap_or("photo codec").to_owned(),
        }
    })
}

/// Fetches the files of a bundle, each no larger than it may be, and compares them with its digest.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(link: &Link, digest: Digest) -> Result<Files, FetchError> {
    let [most_manifest, most_encoder, most_tables] = MOST;
    let manifest = get(link, &file_path(&digest, MANIFEST), most_manifest).await?;
    let parsed = Manifest::parse(&manifest)?;
    let mut sized = Vec::with_capacity(2);
    for (name, most) in [(ENCODER, most_encoder), (TABLES, most_tables)] {
        let listed = parsed.files.get(name);
        let listed = listed.ok_or_else(|| BundleError::Unlisted(name.to_owned()))?;
        let what = format!("{name} of the edge's bundle");
        if listed.bytes > most as u64 {
            let reason = format!("has {} bytes, limit {most}", listed.bytes);
            return Err(FetchError::Body { what, reason });
        }
        sized.push(get(link, &file_path(&digest, name), listed.bytes as usize).await?);
    }
    let tables = sized.pop().unwrap_or_default();
    let encoder = sized.pop().unwrap_or_default();
    let files = Files {
        manifest: manifest.into(),
        encoder: encoder.into(),
        tables: tables.into(),
    };
    files.check(digest)?;
    Ok(files)
}

/// Reads something of the edge's own, of at most `most` bytes.
async fn get(link: &Link, path: &str, most: usize) -> Result<Bytes, FetchError> {
    // No upstream: it is for the edge itself.
    let edge = Destination {
        upstream: None,
        direct: None,
        version: Version::HTTP_11,
    };
    let whole = async {
        let request = Request::get(path).body(body::empty());
        let request = request.map_err(|error| FetchError::Link(error.to_string()))?;
        let answer = link.send(&edge, Box::new(request), None).await;
        let answer = answer.map_err(|error| FetchError::Link(error.to_string()))?;
        if answer.status() != StatusCode::OK {
            let kind = answer
                .headers()
                .get(ERROR)
                .and_then(|kind| kind.to_str().ok());
            let kind = kind.map(|kind| format!(" ({kind})")).unwrap_or_default();
            return Err(FetchError::Refused(answer.status(), path.to_owned(), kind));
        }
        let body = Limited::new(answer.into_body(), most).collect().await;
        let body = body.map_err(|error| FetchError::Body {
            what: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(body.to_bytes())
    };
    let late = |_| FetchError::Link(format!("{path} has not arrived within {LIMIT:?}"));
    timeout(LIMIT, whole).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_codec_is_taken_or_the_first() {
        let offer = |name: &str| Offer {
            name: name.to_owned(),
            version: "1".to_owned(),
            domain: Domain::Image,
            digest: Digest::of(name.as_bytes()),
            qualities: Vec::new(),
        };
        let mut description = Description {
            version: "1".to_owned(),
            bundles: vec![offer("photo"), offer("photo-v0")],
            upstreams: Vec::new(),
        };
        assert_eq!(choose(&description, None).unwrap().name, "photo");
        assert_eq!(
            choose(&description, Some("photo-v0")).unwrap().name,
            "photo-v0"
        );
        let error = choose(&description, Some("sound")).unwrap_err().to_string();
        assert_eq!(error, "the edge offers photo, photo-v0, and no sound");
        description.bundles.clear();
        let error = choose(&description, None).unwrap_err().to_string();
        assert_eq!(error, "the edge offers nothing, and no photo codec");
    }
}
