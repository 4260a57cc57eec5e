//! The device sidecar's configuration.

mod coding;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use sidecod_sidecar::config::{self, ConfigError};
use sidecod_sidecar::listen::ServerLimits;
use sidecod_sidecar::upstream::BaseUrl;
use sidecod_wire::limits::Limits;
use sidecod_wire::slot::Preset;

pub use coding::{LayoutName, Render, Tensor};

/// Variables of the environment that start with this and two underscores set keys.
pub const ENV_PREFIX: &str = "SIDECOD_DEVICE";

/// The whole configuration; see `examples/demo/proxy-device.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where apps connect (HTTP/1.1).
    pub listen: SocketAddr,
    /// Where `/metrics`, `/live` and `/ready` are.
    pub admin: SocketAddr,
    /// Base URL of the model server itself, for when the edge cannot be reached.
    #[serde(default)]
    pub direct: Option<BaseUrl>,
    /// The edge sidecar.
    pub edge: Edge,
    /// How inputs are encoded.
    pub codec: Codec,
    /// Which requests are offloaded; the first that matches counts.
    #[serde(default, rename = "route")]
    pub routes: Vec<Route>,
    /// Bounds on what an input may be.
    #[serde(default)]
    pub limits: Limits,
    /// Bounds of the listener.
    #[serde(default)]
    pub server: ServerLimits,
    /// Milliseconds in which the body of a request that a route takes must have arrived.
    #[serde(default = "thirty_seconds")]
    pub body_timeout_ms: u64,
    /// Mebibytes of bodies that are held at a time, to be coded or sent again; further requests of
    /// routes pass through.
    #[serde(default = "sixty_four")]
    pub max_held_mib: usize,
    /// Threads for sockets.
    #[serde(default = "two")]
    pub worker_threads: usize,
    /// Whether the app gets to see the edge's `Server-Timing`.
    #[serde(default)]
    pub keep_server_timing: bool,
}

/// The edge sidecar and the link to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Base URL, `http://host:port`.
    pub url: BaseUrl,
    /// Must be true: nothing on the link is encrypted, and that has to be meant.
    #[serde(default)]
    pub plaintext: bool,
    /// What admits this device to the edge.
    #[serde(default)]
    pub token: Option<Token>,
    /// Name of the upstream that the edge calls.
    #[serde(default = "default_upstream")]
    pub upstream: String,
    /// Milliseconds for a connection to be made.
    #[serde(default = "two_seconds")]
    pub connect_timeout_ms: u64,
}

/// A secret that does not show itself in logs.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The secret.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// The codec and the threads that run it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Codec {
    /// Folder of the bundle.
    pub bundle: PathBuf,
    /// Threads that encode, one request each.
    #[serde(default = "one")]
    pub threads: usize,
    /// Requests that wait for such a thread; further ones cross uncoded.
    #[serde(default = "sixteen")]
    pub queue: usize,
}

/// Requests whose inputs are coded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, in metrics and logs.
    pub name: String,
    /// The method.
    #[serde(default = "post")]
    pub method: String,
    /// The path: `*` stands for one segment, a last `**` for any rest.
    pub path: String,
    /// Content-types, `image/*` for all of a kind; none means any.
    #[serde(default)]
    pub content_type: Vec<String>,
    /// The protocol that its requests speak, which tells where inputs stand in them.
    #[serde(default)]
    pub shape: Preset,
    /// More places in JSON bodies: JSON Pointers, `*` for any key or index, `**` for any number of
    /// them.
    #[serde(default)]
    pub pointers: Vec<String>,
    /// What the numbers of tensors are; without it only tensors of bytes are taken as pixels.
    #[serde(default)]
    pub tensor: Option<Tensor>,
    /// Media type in which the model server gets photos.
    #[serde(default)]
    pub render: Render,
    /// Name of one of the bundle's qualities; the first where none is named.
    #[serde(default)]
    pub quality: Option<String>,
    /// Pixels to which the longer side of a photo is reduced before it is coded, because the model
    /// reduces it anyway; the model server gets the original size. 0 codes every photo as it is.
    #[serde(default)]
    pub max_side: u32,
    /// Whether the model server may be asked twice where a link breaks in between.
    #[serde(default = "yes")]
    pub idempotent: bool,
    /// Bytes of a body that is held; larger ones pass through.
    #[serde(default = "thirty_two_mib")]
    pub max_body: usize,
    /// Milliseconds until the answer must begin, all attempts together.
    #[serde(default = "thirty_seconds")]
    pub timeout_ms: u64,
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] that names the file, the line and the key.
    pub fn load(file: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let config: Self = config::load(file, ENV_PREFIX, sets)?;
        config
            .check()
            .map_err(|(key, message)| ConfigError::Invalid {
                file: file.to_owned(),
                place: None,
                message: format!("{key}: {message}"),
            })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, message: &str| Err((key.to_owned(), message.to_owned()));
        if !self.edge.plaintext {
            return wrong(
                "edge.plaintext",
                "an http URL is not encrypted; say plaintext = true if that is meant",
            );
        }
        for (key, value) in [
            ("codec.threads", self.codec.threads),
            ("codec.queue", self.codec.queue),
            ("max_held_mib", self.max_held_mib),
            ("worker_threads", self.worker_threads),
            ("server.max_connections", self.server.max_connections),
        ] {
            if value == 0 {
                return wrong(key, "must be at least 1");
            }
        }
        for (index, route) in self.routes.iter().enumerate() {
            let key = |name: &str| format!("route[{index}].{name} ({})", route.name);
            if Method::from_bytes(route.method.as_bytes()).is_err() {
                return wrong(&key("method"), "is no HTTP method");
            }
            if !route.path.starts_with('/') {
                return wrong(&key("path"), "must begin with /");
            }
            if let Some(at) = route.path.find("**")
                && at + 2 != route.path.len()
            {
                return wrong(&key("path"), "** may only stand at the end");
            }
            if self.routes[..index]
                .iter()
                .any(|other| other.name == route.name)
            {
                return wrong(&key("name"), "two routes have this name");
            }
        }
        Ok(())
    }
}

impl Route {
    /// How long until the answer must begin.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

fn one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn sixteen() -> usize {
    16
}
fn sixty_four() -> usize {
    64
}
fn thirty_two_mib() -> usize {
    32 << 20
}
fn two_seconds() -> u64 {
    2000
}
fn thirty_seconds() -> u64 {
    30_000
}
fn yes() -> bool {
    true
}
fn post() -> String {
    "POST".to_owned()
}
fn default_upstream() -> String {
    "default".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("d.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file, &[]).map_err(|error| {
            error
                .to_string()
                .replace(&format!("{}/", folder.path().display()), "")
        })
    }

    const GOOD: &str = r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
[edge]
url = "http://edge:7100"
plaintext = true
token = "hush"
[codec]
bundle = "x"
[[route]]
name = "a"
path = "/v1/*"
"#;

    #[test]
    fn the_demos_configuration_is_good() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo/proxy-device.toml");
        let config = Config::load(&file, &[]).unwrap();
        assert_eq!(config.routes[0].name, "classify");
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!("{:?}", load(GOOD).unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn faults_are_named() {
        for (from, to, says) in [
            (
                "plaintext = true",
                "",
                "edge.plaintext: an http URL is not encrypted",
            ),
            (
                "http://edge:7100",
                "ftp://edge",
                "d.toml:5:7: url: `ftp://edge` is no base URL, want http://host:port",
            ),
            (
                "http://edge:7100",
                "edge",
                "d.toml:5:7: url: `edge` is no base URL",
            ),
            (
                "path = \"/v1/*\"",
                "path = \"v1\"",
                "route[0].path (a): must begin with /",
            ),
            (
                "path = \"/v1/*\"",
                "path = \"/**/x\"",
                "route[0].path (a): ** may only stand at the end",
            ),
            (
                "name = \"a\"",
                "name = \"a\"\nmethod = \"NO WAY\"",
                "route[0].method (a): is no HTTP method",
            ),
            (
                "name = \"a\"",
                "name = \"a\"\ncolour = 1",
                "d.toml:12:1: unknown field `colour`",
            ),
            (
                "bundle = \"x\"",
                "bundle = \"x\"\nthreads = 0",
                "codec.threads: must be at least 1",
            ),
        ] {
            let error = load(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(says), "{error:?} should say {says:?}");
        }
    }
}
