//! A configuration: its file, then what is set over it, one line each, after a NUL.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use sidecod_sidecar::config::load;
use sidecod_sidecar::listen::ServerLimits;
use sidecod_sidecar::upstream::BaseUrl;
use sidecod_wire::limits::Limits;
use sidecod_wire::slot::Preset;

/// What the configurations of both sidecars are made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Config {
    listen: Vec<SocketAddr>,
    url: BaseUrl,
    #[serde(default)]
    shape: Preset,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    server: ServerLimits,
    #[serde(default, rename = "upstream")]
    upstreams: Vec<Upstream>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Upstream {
    name: String,
    url: BaseUrl,
    timeout_ms: Option<u64>,
}

thread_local! {
    static FILE: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Reads it; a fault must be one that can be told.
pub fn config(data: &[u8]) {
    let (file, sets) = match data.iter().position(|byte| *byte == 0) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    let sets: Vec<String> = String::from_utf8_lossy(sets)
        .lines()
        .map(str::to_owned)
        .collect();
    let path = FILE.with_borrow_mut(|path| {
        let name = format!(
            "sidecod-config-{}-{:?}.toml",
            std::process::id(),
            std::thread::current().id()
        );
        path.get_or_insert_with(|| std::env::temp_dir().join(name))
            .clone()
    });
    std::fs::write(&path, file).expect("a temporary file");
    match load::<Config>(&path, "SIDECOD_FUZZ", &sets) {
        Ok(config) => assert!(!config.url.authority().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
