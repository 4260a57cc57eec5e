//! The device sidecar's configuration.

mod coding;
mod plan;
mod trust;
mod urls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use sidecod_sidecar::config::{self, ConfigError};
use sidecod_sidecar::listen::ServerLimits;
use sidecod_sidecar::log::Log;
use sidecod_sidecar::otlp::Otlp;
use sidecod_sidecar::tls::ClientTls;
use sidecod_sidecar::upstream::BaseUrl;
use sidecod_wire::limits::Limits;
use sidecod_wire::slot::Preset;

pub use coding::{LayoutName, Render, Tensor};
pub use plan::{Measured, Named, Plan};
pub use trust::Mode;
pub use urls::Urls;

use crate::ingress::destination::HostPort;
use crate::plan::option::Fidelity;
use crate::trial::compare::Preset as Compare;

/// Variables of the environment that start with this and two underscores set keys.
pub const ENV_PREFIX: &str = "SIDECOD_DEVICE";

/// The whole configuration; see `examples/demo/proxy-device.toml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where apps connect, each list in its own way.
    pub listen: Listen,
    /// Where `/metrics`, `/live` and `/ready` are.
    #[schemars(example = "127.0.0.1:7001")]
    pub admin: SocketAddr,
    /// Base URL of the model server itself, for when the edge cannot be reached.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub direct: Option<BaseUrl>,
    /// The edge sidecar.
    pub edge: Edge,
    /// How inputs are encoded.
    #[serde(default)]
    pub codec: Codec,
    /// The model servers that may be reached through the edge, for the ways in on which requests say
    /// themselves where they go.
    #[serde(default, rename = "destination")]
    pub destinations: Vec<Destination>,
    /// Which requests are offloaded; the first that matches counts.
    #[serde(default, rename = "route")]
    pub routes: Vec<Route>,
    /// How routes with several options choose.
    #[serde(default)]
    pub plan: Plan,
    /// Bounds on what an input may be.
    #[serde(default)]
    pub limits: Limits,
    /// Bounds of the listeners, which share them.
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
    #[serde(default = "one")]
    pub worker_threads: usize,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
    /// Where spans go, if anywhere.
    #[serde(default)]
    pub otlp: Option<Otlp>,
    /// Whether the app gets to see the edge's `Server-Timing`.
    #[serde(default)]
    pub keep_server_timing: bool,
}

/// The listeners, by the way in which an app finds them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// The app's base URL names these.
    pub reverse: Vec<SocketAddr>,
    /// The app's `HTTP_PROXY` names these.
    pub forward: Vec<SocketAddr>,
    /// The system redirects the app's connections to these.
    pub transparent: Vec<SocketAddr>,
    /// Milliseconds in which the first bytes of a redirected connection say what protocol it is.
    pub detect_timeout_ms: u64,
    /// Milliseconds for a connection to where a request of a forward or transparent listener goes.
    pub connect_timeout_ms: u64,
    /// Milliseconds after which a tunnel in which nothing moves is closed.
    pub tunnel_idle_ms: u64,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            reverse: Vec::new(),
            forward: Vec::new(),
            transparent: Vec::new(),
            detect_timeout_ms: 300,
            connect_timeout_ms: 10_000,
            tunnel_idle_ms: 3_600_000,
        }
    }
}

/// A model server that apps address themselves.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// What apps call it, `name:port` or `address:port`.
    #[schemars(with = "Vec<String>", example = ["model.lan:8080"])]
    pub hosts: Vec<HostPort>,
    /// The name of the upstream that the edge calls for it.
    #[serde(default = "default_upstream")]
    pub upstream: String,
}

/// The edge sidecar and the link to it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Base URL, `https://host:port`, or `http://host:port` with `plaintext`, or a list of them. All
    /// addresses of each name are used.
    #[schemars(example = "https://edge.example:7100")]
    pub url: Urls,
    /// Whom this device trusts, and what it shows, with an https URL.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// True with an http URL: nothing on the link is encrypted, and that has to be meant.
    #[serde(default)]
    pub plaintext: bool,
    /// What admits this device to the edge.
    #[serde(default)]
    pub token: Option<Token>,
    /// Name of the upstream that the edge calls for requests of reverse listeners.
    #[serde(default = "default_upstream")]
    pub upstream: String,
    /// Milliseconds for a connection to be made.
    #[serde(default = "two_seconds")]
    pub connect_timeout_ms: u64,
    /// Requests that may be sent again in a second after an edge that had them has failed; what is
    /// over it, and over `retry_share`, gets the error at once, so that trouble is not answered with
    /// more load.
    #[serde(default = "twenty_five")]
    pub retries_per_second: u32,
    /// Share of all requests that may be sent again besides `retries_per_second`.
    #[serde(default = "a_fifth")]
    pub retry_share: f64,
}

/// A secret that does not show itself in logs.
#[derive(Clone, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Codec {
    /// Folder of the bundle; without it the edge's own is fetched and kept in `cache`.
    pub bundle: Option<PathBuf>,
    /// Name of the edge's codec that is fetched; the first that it has where none is named.
    pub name: Option<String>,
    /// Folder of fetched bundles; that of the system or of the user for caches where none is named.
    pub cache: Option<PathBuf>,
    /// Folders of bundles for features, with the part of a model that runs here before them.
    pub heads: Vec<PathBuf>,
    /// Folder of a model that runs here as a whole.
    pub local: Option<PathBuf>,
    /// Threads that encode, one request each.
    pub threads: usize,
    /// Requests that wait for such a thread; further ones cross uncoded.
    pub queue: usize,
}

impl Default for Codec {
    fn default() -> Self {
        Self {
            bundle: None,
            name: None,
            cache: None,
            heads: Vec::new(),
            local: None,
            threads: 1,
            queue: 16,
        }
    }
}

/// Requests whose inputs are coded.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, in metrics and logs.
    #[schemars(example = &"classify")]
    pub name: String,
    /// The method.
    #[serde(default = "post")]
    pub method: String,
    /// The path: `*` stands for one segment, a last `**` for any rest.
    #[schemars(example = "/predictions/*")]
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
    /// The options among which the plan chooses; without any, the quality is the only one.
    #[serde(default)]
    pub options: Vec<Named>,
    /// What an option must keep to be taken.
    #[serde(default)]
    pub floor: Fidelity,
    /// Milliseconds that the device may take at most for an option.
    #[serde(default)]
    pub max_device_ms: Option<f64>,
    /// Pixels to which the longer side of a photo is reduced before it is coded, because the model
    /// reduces it anyway; the model server gets the original size. 0 codes every photo as it is.
    #[serde(default)]
    pub max_side: u32,
    /// How samples of sounds cross: `flac`, without loss, or `opus:KBITS`, of so many kilobits a second.
    #[serde(default)]
    #[schemars(example = &"flac")]
    pub sound: Option<String>,
    /// Whether the model server may be asked twice where a link breaks in between.
    #[serde(default = "yes")]
    pub idempotent: bool,
    /// Bytes of a body that is held; larger ones pass through.
    #[serde(default = "thirty_two_mib")]
    pub max_body: usize,
    /// Milliseconds until the answer must begin, all attempts together.
    #[serde(default = "thirty_seconds")]
    pub timeout_ms: u64,
    /// Whether codes are sent, or only computed.
    #[serde(default)]
    pub mode: Mode,
    /// Share of the requests that are sent both ways, to compare the answers.
    #[serde(default)]
    pub verify: f64,
    /// What about the answers has to be the same.
    #[serde(default)]
    pub compare: Compare,
    /// Share of the compared answers that have to agree; below it the route passes through.
    #[serde(default)]
    pub min_agreement: Option<f64>,
    /// Milliseconds that it then passes through before codes are tried again.
    #[serde(default = "ten_minutes")]
    pub try_again_ms: u64,
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] that names the file, the line and the key.
    pub fn load(file: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        config::load::<Self>(file, ENV_PREFIX, sets)?.checked(file)
    }

    /// The same of a text, which is that of `file`, or will be.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        config::parse::<Self>(file, text, &[])?.checked(file)
    }

    fn checked(self, file: &Path) -> Result<Self, ConfigError> {
        self.check()
            .map_err(|(key, message)| ConfigError::Invalid {
                file: file.to_owned(),
                place: None,
                message: format!("{key}: {message}"),
            })?;
        Ok(self)
    }

    /// Names of what differs in another configuration and cannot change while the sidecar runs.
    #[must_use]
    pub fn fixed(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            (
                "listen.reverse",
                self.listen.reverse != other.listen.reverse,
            ),
            (
                "listen.forward",
                self.listen.forward != other.listen.forward,
            ),
            (
                "listen.transparent",
                self.listen.transparent != other.listen.transparent,
            ),
            ("admin", self.admin != other.admin),
            ("server", self.server != other.server),
            (
                "worker_threads",
                self.worker_threads != other.worker_threads,
            ),
        ];
        let differs = differs.into_iter().filter(|(_, differs)| *differs);
        differs.map(|(name, _)| name).collect()
    }

    /// The files that a reload depends on, besides the configuration's own.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let Some(tls) = &self.edge.tls else {
            return Vec::new();
        };
        let files = [&tls.identity, &tls.ca, &tls.certificate, &tls.key];
        files.into_iter().flatten().cloned().collect()
    }

    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, message: &str| Err((key.to_owned(), message.to_owned()));
        let edge = &self.edge;
        let is_https = edge.url.first().is_https();
        if edge.url.all().any(|url| url.is_https() != is_https) {
            return wrong("edge.url", "all of them http, or all https");
        }
        match (is_https, edge.tls.is_some(), edge.plaintext) {
            (false, _, false) => {
                return wrong(
                    "edge.plaintext",
                    "an http URL is not encrypted; say https, or plaintext = true if that is meant",
                );
            }
            (false, true, _) => return wrong("edge.tls", "is for an https URL"),
            (true, _, true) => return wrong("edge.plaintext", "is for an http URL"),
            (true, false, _) => {
                return wrong(
                    "edge.tls",
                    "say identity = \"device.pem\" (from proxy-edge cert), or ca = FILE",
                );
            }
            _ => {}
        }
        if !(0.0..=10.0).contains(&self.edge.retry_share) {
            return wrong("edge.retry_share", "must be from 0 to 10");
        }
        if self.edge.retries_per_second > 100_000 {
            return wrong("edge.retries_per_second", "must be at most 100000");
        }
        let listen = &self.listen;
        if [&listen.reverse, &listen.forward, &listen.transparent]
            .iter()
            .all(|list| list.is_empty())
        {
            return wrong(
                "listen",
                "no address; say reverse, forward or transparent = [\"127.0.0.1:7000\"]",
            );
        }
        for (key, value) in [
            (
                "listen.detect_timeout_ms",
                listen.detect_timeout_ms as usize,
            ),
            (
                "listen.connect_timeout_ms",
                listen.connect_timeout_ms as usize,
            ),
            ("listen.tunnel_idle_ms", listen.tunnel_idle_ms as usize),
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
        self.plan.check()?;
        for (index, destination) in self.destinations.iter().enumerate() {
            let key = |name: &str| format!("destination[{index}].{name}");
            if destination.hosts.is_empty() {
                return wrong(&key("hosts"), "no host; say hosts = [\"model.lan:8080\"]");
            }
            if HeaderValue::from_str(&destination.upstream).is_err() {
                return wrong(&key("upstream"), "must be visible ASCII");
            }
            let earlier = self.destinations[..index].iter().flat_map(|d| &d.hosts);
            for host in earlier {
                if destination.hosts.contains(host) {
                    return wrong(&key("hosts"), &format!("{host} stands in an earlier one"));
                }
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
            if let Err((name, message)) = route.check_trust() {
                return wrong(&key(name), message);
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
fn ten_minutes() -> u64 {
    600_000
}
fn yes() -> bool {
    true
}
fn post() -> String {
    "POST".to_owned()
}
fn twenty_five() -> u32 {
    25
}
fn a_fifth() -> f64 {
    0.2
}
fn default_upstream() -> String {
    "default".to_owned()
}

#[cfg(test)]
mod tests;
