//! The edge sidecar's configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sidecod_sidecar::config::{self, ConfigError};
use sidecod_sidecar::listen::ServerLimits;
use sidecod_sidecar::log::Log;
use sidecod_sidecar::otlp::Otlp;
use sidecod_sidecar::tls::ServerTls;
use sidecod_sidecar::upstream::BaseUrl;
use sidecod_wire::limits::Limits;

use crate::point::Forward;

/// Variables of the environment that start with this and two underscores set keys.
pub const ENV_PREFIX: &str = "SIDECOD_EDGE";

/// The whole configuration; see `examples/demo/proxy-edge.toml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where devices connect (HTTP/2).
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where `/metrics`, `/live` and `/ready` are.
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
    /// The certificate that devices see, and whose devices are admitted.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// True in place of `tls`: nothing on the link is encrypted, and that has to be meant.
    #[serde(default)]
    pub plaintext: bool,
    /// What a device must show to be admitted; without one, every device is.
    #[serde(default)]
    pub token: Option<Token>,
    /// What `proxy-edge profile` wrote on this machine; devices ask for it.
    #[serde(default)]
    pub profile: Option<PathBuf>,
    /// Folders of the bundles that are decoded.
    #[schemars(example = ["/var/lib/sidecod/photo"])]
    pub bundles: Vec<PathBuf>,
    /// Bundles of features whose tail the model server has; of others the tail runs here.
    #[serde(default, rename = "tail")]
    pub tails: Vec<Forward>,
    /// The only servers that are ever called.
    #[serde(rename = "upstream")]
    pub upstreams: Vec<UpstreamConfig>,
    /// Where decoders run.
    #[serde(default)]
    pub device: Device,
    /// In what numbers decoders compute.
    #[serde(default)]
    pub precision: Precision,
    /// Threads that one forward of a decoder uses on a CPU; cores / `decode_threads` by default.
    #[serde(default)]
    pub torch_threads: Option<usize>,
    /// Threads for sockets.
    #[serde(default = "two")]
    pub worker_threads: usize,
    /// Threads that run decoders.
    #[serde(default = "one")]
    pub decode_threads: usize,
    /// Pictures that wait for a decode thread; a further one is refused.
    #[serde(default = "sixty_four")]
    pub decode_queue: usize,
    /// Milliseconds that a picture may be expected to wait for a decode thread, by what others have
    /// taken; one that would wait longer is refused.
    #[serde(default = "five_seconds")]
    pub decode_wait_ms: u64,
    /// Windows that are decoded together.
    #[serde(default = "eight")]
    pub max_batch: usize,
    /// Frames in hand at a time, from their first byte to the head of the model server's answer.
    #[serde(default = "sixty_four")]
    pub max_frames: usize,
    /// Pixels of the pictures that are being decoded or rendered at a time. Memory grows with them.
    #[serde(default = "two_hundred_million")]
    pub max_pixels_in_hand: u64,
    /// Bounds on what a frame may declare.
    #[serde(default)]
    pub limits: Limits,
    /// Bounds of the listener.
    #[serde(default)]
    pub server: ServerLimits,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
    /// Where spans go, if anywhere.
    #[serde(default)]
    pub otlp: Option<Otlp>,
    /// Bytes of a frame.
    #[serde(default = "sixteen_mib")]
    pub max_body: usize,
    /// Milliseconds in which a frame must have arrived.
    #[serde(default = "thirty_seconds")]
    pub body_timeout_ms: u64,
}

/// A secret that does not show itself in logs.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Whether a device has shown it. Takes the same time wherever the two differ.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        let token = self.0.as_bytes();
        let differences = token.iter().zip(shown).fold(0, |sum, (a, b)| sum | (a ^ b));
        // Without it the loop may be left early, once the outcome is known.
        std::hint::black_box(differences) == 0 && token.len() == shown.len()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// A model server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The name that devices use.
    #[schemars(example = &"default")]
    pub name: String,
    /// Base URL, `http://host:port`.
    #[schemars(with = "String", example = "http://127.0.0.1:8500")]
    pub url: BaseUrl,
    /// Milliseconds until its answer must begin.
    #[serde(default = "one_minute")]
    pub timeout_ms: u64,
    /// Milliseconds for a connection to be made.
    #[serde(default = "two_seconds")]
    pub connect_timeout_ms: u64,
    /// Requests that it is given at a time, each until the end of its answer.
    #[serde(default = "sixty_four")]
    pub max_in_flight: usize,
    /// Milliseconds that a further one waits for its turn before it is refused.
    #[serde(default = "one_second")]
    pub max_wait_ms: u64,
}

/// Where decoders run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// On the first GPU where there is one.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
    /// On the first GPU; none is an error.
    Cuda,
}

/// In what numbers decoders compute.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Of 32 bits: within 1/255 of what other engines give.
    #[default]
    Float32,
    /// Of 16 bits: some 3/255 off at most, and several times as fast on a CPU with matrix units (AMX).
    Bfloat16,
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
        self.check().map_err(|message| ConfigError::Invalid {
            file: file.to_owned(),
            place: None,
            message,
        })?;
        Ok(self)
    }

    /// Names of what differs in another configuration and cannot change while the edge runs.
    #[must_use]
    pub fn fixed(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("listen", self.listen != other.listen),
            ("admin", self.admin != other.admin),
            ("plaintext", self.plaintext != other.plaintext),
            ("tls", self.tls.is_some() != other.tls.is_some()),
            ("bundles", self.bundles != other.bundles),
            ("device", self.device != other.device),
            ("precision", self.precision != other.precision),
            ("torch_threads", self.torch_threads != other.torch_threads),
            (
                "decode_threads",
                self.decode_threads != other.decode_threads,
            ),
            ("decode_queue", self.decode_queue != other.decode_queue),
            ("max_batch", self.max_batch != other.max_batch),
            ("max_frames", self.max_frames != other.max_frames),
            (
                "max_pixels_in_hand",
                self.max_pixels_in_hand != other.max_pixels_in_hand,
            ),
            ("limits", self.limits != other.limits),
            ("server", self.server != other.server),
            ("log", self.log != other.log),
            ("otlp", self.otlp != other.otlp),
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
        let Some(tls) = &self.tls else {
            return Vec::new();
        };
        let required = [tls.certificate.clone(), tls.key.clone()];
        required.into_iter().chain(tls.client_ca.clone()).collect()
    }

    /// Whether a device has to show something to be admitted.
    #[must_use]
    pub fn asks_devices(&self) -> bool {
        self.token.is_some() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// Threads that one forward uses on a CPU.
    #[must_use]
    pub fn threads_per_forward(&self) -> usize {
        self.torch_threads.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            (cores / self.decode_threads).max(1)
        })
    }

    fn check(&self) -> Result<(), String> {
        match (&self.tls, self.plaintext) {
            (None, false) => return Err("tls: give certificate and key (proxy-edge cert makes them), or say plaintext = true if nothing on the link is to be encrypted".into()),
            (Some(_), true) => return Err("plaintext: with tls, it cannot be true as well".into()),
            _ => {}
        }
        if let Some(Token(token)) = &self.token
            && (token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err("token: must be visible ASCII without spaces".into());
        }
        for (key, value) in [
            ("bundles (their number)", self.bundles.len()),
            ("upstream (their number)", self.upstreams.len()),
            ("torch_threads", self.torch_threads.unwrap_or(1)),
            ("worker_threads", self.worker_threads),
            ("decode_threads", self.decode_threads),
            ("decode_queue", self.decode_queue),
            ("max_batch", self.max_batch),
            ("max_frames", self.max_frames),
            ("max_body", self.max_body),
            ("body_timeout_ms", self.body_timeout_ms as usize),
            ("server.max_connections", self.server.max_connections),
            ("server.max_streams", self.server.max_streams as usize),
        ] {
            if value == 0 {
                return Err(format!("{key}: must be at least 1"));
            }
            // What is larger is a mistake, and a semaphore would not hold it.
            if value > 1 << 32 {
                return Err(format!("{key}: {value} is too large"));
            }
        }
        if self.max_pixels_in_hand < self.limits.max_pixels {
            return Err(format!(
                "max_pixels_in_hand: {} is less than limits.max_pixels, {}",
                self.max_pixels_in_hand, self.limits.max_pixels
            ));
        }
        for (index, upstream) in self.upstreams.iter().enumerate() {
            if upstream.max_in_flight == 0 || upstream.max_in_flight > 1 << 32 {
                return Err(format!(
                    "upstream[{index}].max_in_flight: must be from 1 to {}",
                    1_u64 << 32
                ));
            }
            if self.upstreams[..index]
                .iter()
                .any(|other| other.name == upstream.name)
            {
                return Err(format!(
                    "upstream[{index}].name: two upstreams are named {}",
                    upstream.name
                ));
            }
        }
        Ok(())
    }
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 7100).into()
}
fn default_admin() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 7101).into()
}
fn two() -> usize {
    2
}
fn one() -> usize {
    1
}
fn eight() -> usize {
    8
}
fn sixty_four() -> usize {
    64
}
fn two_hundred_million() -> u64 {
    200_000_000
}
fn sixteen_mib() -> usize {
    16 << 20
}
fn five_seconds() -> u64 {
    5000
}
fn one_second() -> u64 {
    1000
}
fn two_seconds() -> u64 {
    2000
}
fn thirty_seconds() -> u64 {
    30_000
}
fn one_minute() -> u64 {
    60_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
plaintext = true
token = "hush"
bundles = ["x"]
[[upstream]]
name = "default"
url = "http://m:1"
"#;

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("e.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file, &[]).map_err(|error| {
            error
                .to_string()
                .replace(&format!("{}/", folder.path().display()), "")
        })
    }

    #[test]
    fn the_demos_configuration_is_good() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo/proxy-edge.toml");
        assert_eq!(
            Config::load(&file, &[]).unwrap().upstreams[0].name,
            "default"
        );
    }

    #[test]
    fn the_reference_is_a_configuration() {
        let text = config::uncommented(&config::reference::<Config>());
        config::parse::<Config>(Path::new("reference.toml"), &text, &[]).unwrap();
    }

    #[test]
    fn tokens_are_compared_whole_and_do_not_show() {
        let config = load(GOOD).unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        let token = config.token.unwrap();
        assert!(token.is(b"hush"));
        for wrong in [&b""[..], b"hus", b"hush!", b"Hush"] {
            assert!(!token.is(wrong));
        }
    }

    #[test]
    fn faults_are_named() {
        for (from, to, says) in [
            ("plaintext = true", "", "tls: give certificate and key"),
            (
                "plaintext = true",
                "plaintext = true\ntls = { certificate = \"c\", key = \"k\" }",
                "plaintext: with tls, it cannot be true as well",
            ),
            ("http://m:1", "m:1", "e.toml:9:7: url: `m:1` is no base URL"),
            (
                "[\"x\"]",
                "[]",
                "bundles (their number): must be at least 1",
            ),
            (
                "token = \"hush\"",
                "device = \"tpu\"",
                "unknown variant `tpu`",
            ),
            (
                "plaintext = true",
                "plaintext = true\ndecode_threads = 0",
                "decode_threads: must be at least 1",
            ),
            (
                "plaintext = true",
                "plaintext = true\nmax_pixels_in_hand = 1",
                "max_pixels_in_hand: 1 is less than limits.max_pixels, 50000000",
            ),
            (
                "name = \"default\"",
                "name = \"default\"\ncolour = 1",
                "e.toml:9:1: unknown field `colour`",
            ),
        ] {
            let error = load(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(says), "{error:?} should say {says:?}");
        }
    }
}
