//! What an edge says of itself at a path that is kept for it, so that a device needs only its URL.

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, Digest, Domain, ENCODER, MANIFEST, TABLES};

/// The path. A request for it, or for something below it, is the edge's own where it names no
/// upstream; a device always names one for what an app asks.
pub const PATH: &str = "/.well-known/sidecod";

/// The files of a bundle that a device needs: data, never code.
pub const FILES: [&str; 3] = [MANIFEST, ENCODER, TABLES];

/// What is answered at [`PATH`], as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Version of the edge.
    pub version: String,
    /// The codecs whose files it gives to devices, in the order of its configuration.
    pub bundles: Vec<Offer>,
    /// Names of the model servers that it calls.
    pub upstreams: Vec<String>,
}

/// A codec that an edge decodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it codes.
    pub domain: Domain,
    /// Names the bundle.
    pub digest: Digest,
    /// Names of its qualities.
    pub qualities: Vec<String>,
}

impl Offer {
    /// The offer of a bundle.
    #[must_use]
    pub fn of(bundle: &Bundle) -> Self {
        let manifest = &bundle.manifest;
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            domain: manifest.domain,
            digest: bundle.digest,
            qualities: manifest
                .qualities
                .iter()
                .map(|quality| quality.name.clone())
                .collect(),
        }
    }
}

/// Where a file of a bundle is.
#[must_use]
pub fn file_path(bundle: &Digest, file: &str) -> String {
    format!("{PATH}/bundles/{bundle}/{file}")
}

/// The bundle and the file that a path is for.
#[must_use]
pub fn parse_file_path(path: &str) -> Option<(Digest, &str)> {
    let (digest, file) = path
        .strip_prefix(PATH)?
        .strip_prefix("/bundles/")?
        .split_once('/')?;
    Some((digest.parse().ok()?, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back() {
        let digest = Digest::of(b"x");
        let path = file_path(&digest, ENCODER);
        assert_eq!(parse_file_path(&path), Some((digest, ENCODER)));
        for other in [
            "/",
            PATH,
            "/.well-known/sidecod/bundles/abc/x",
            "/.well-known/sidecods",
        ] {
            assert_eq!(parse_file_path(other), None, "{other}");
        }
    }

    #[test]
    fn descriptions_come_back_and_may_grow() {
        let text = format!(
            r#"{{"version":"9","later":1,"upstreams":["a"],"bundles":[{{"name":"photo","version":"1","domain":"image","digest":"{}","qualities":["q1"],"more":2}}]}}"#,
            Digest::of(b"")
        );
        let description: Description = serde_json::from_str(&text).unwrap();
        let again = serde_json::to_string(&description).unwrap();
        assert_eq!(
            serde_json::from_str::<Description>(&again).unwrap(),
            description
        );
        assert_eq!(description.bundles[0].digest, Digest::of(b""));
    }
}
