//! The process: binds, says where, loads the codecs, serves, drains.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sidecod_sidecar::admin::{self, Admin};
use sidecod_sidecar::readiness::{Blocker, Readiness};
use sidecod_sidecar::shutdown::{self, Shutdown};
use sidecod_sidecar::tls::{self, TlsError};
use sidecod_sidecar::{listen, metrics};
use sidecod_wire::profile::Profile;
use tokio::net::TcpListener;

use crate::about::About;
use crate::bundles::Stored;
use crate::config::Config;
use crate::decode::pool::{Pool, Settings};
use crate::decode::torch::Engine;
use crate::decode::{Codec, DecoderError};
use crate::point::{Place, forwards};
use crate::reload::{self, Source};
use crate::restore::Restorer;
use crate::serve::Edge;

/// Why the process ends before it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error("{key} = {address}: {source}")]
    Bind {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refuses what every process gets: a signal handler, a thread, standard output.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The profile cannot be read.
    #[error("profile: {}: {reason}", file.display())]
    Profile {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A frame of the measurement is not restored.
    #[error("measuring: {0}")]
    Measure(String),
    /// A certificate or key cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// Metrics cannot be counted.
    #[error("metrics: {0}")]
    Metrics(String),
    /// A tail of the configuration has no bundle.
    #[error("{0}")]
    Tail(String),
    /// A decoder cannot be loaded, or does not run.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
}

/// Runs the edge until the process is asked to end, then drains.
///
/// # Errors
/// [`RunError`] if it cannot start.
pub async fn run(source: Source, config: Config, stored: Vec<Stored>) -> Result<(), RunError> {
    let handle = metrics::install().map_err(|error| RunError::Metrics(error.to_string()))?;
    let tls = config.tls.as_ref().map(|files| {
        show_expiry(files)?;
        tls::Server::new(files).map(Arc::new)
    });
    let tls = tls.transpose()?;
    let data = bind("listen", config.listen).await?;
    let admin = bind("admin", config.admin).await?;
    say_addresses(data.local_addr()?, admin.local_addr()?)?;
    if !config.asks_devices() && !config.listen.ip().is_loopback() {
        tracing::warn!(listen = %config.listen, "whoever reaches this address is admitted: neither token nor tls.client_ca is set");
    }

    let readiness = Readiness::default();
    let blockers: Vec<Blocker> = stored
        .iter()
        .map(|stored| readiness.block(format!("bundle {}", stored.bundle.manifest.name)))
        .collect();
    let about = About::new(&stored, &config.upstreams);
    let profile = read_profile(config.profile.as_deref())?;
    let edge = Arc::new(Edge::new(&config, about, readiness.clone(), profile));
    let (trigger, shutdown) = Shutdown::new();
    let service = listen::service({
        let edge = edge.clone();
        move |request| edge.clone().answer(request)
    });
    let server = tokio::spawn({
        let (limits, tls) = (config.server.clone(), tls.clone());
        async move { listen::http2_in(data, tls, &limits, service, shutdown).await }
    });
    let (last_trigger, last) = Shutdown::new();
    let told = Admin {
        program: "proxy-edge",
        readiness: readiness.clone(),
        metrics: handle,
        more: admin::Router::new(),
    };
    let admin = tokio::spawn(admin::serve(admin, told, last));

    let reloading = reload::keep(source, config.clone(), edge.clone(), tls);
    let life = async {
        edge.open(load(config, stored).await?);
        drop(blockers);
        tracing::info!("ready");
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = life => ended,
        asked = shutdown::asked_to_end() => asked.map_err(RunError::from),
        ended = reloading => ended.map_err(RunError::from),
    };
    tracing::info!("draining");
    let _draining = readiness.block("draining");
    trigger.fire();
    let broke_off = |error| tracing::error!(%error, "a listener broke off");
    shutdown::unless_asked_again(async { server.await.unwrap_or_else(broke_off) }).await?;
    // It has said until now that the process is not ready, and what it still does.
    last_trigger.fire();
    admin.await.unwrap_or_else(broke_off);
    ended
}

/// The profile that devices are given.
fn read_profile(file: Option<&Path>) -> Result<Option<Bytes>, RunError> {
    let Some(file) = file else { return Ok(None) };
    let fault = |reason: String| RunError::Profile {
        file: file.to_owned(),
        reason,
    };
    let json = std::fs::read(file).map_err(|error| fault(error.to_string()))?;
    Profile::parse(&json).map_err(|error| fault(error.to_string()))?;
    Ok(Some(json.into()))
}

/// Says when the edge's certificate ends.
pub(crate) fn show_expiry(files: &tls::ServerTls) -> Result<(), TlsError> {
    let expiry = tls::expiry(&files.certificate)?;
    ::metrics::gauge!("sidecod_edge_certificate_expiry_seconds").set(expiry.unix() as f64);
    if expiry.is_near() {
        tracing::warn!(%expiry, "the certificate ends; proxy-edge cert --renew makes a new one");
    } else {
        tracing::info!(%expiry, "certificate");
    }
    Ok(())
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Bind {
            key,
            address,
            source,
        })
}

/// The one line on standard output, for whoever started the process with port 0.
fn say_addresses(data: SocketAddr, admin: SocketAddr) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "listening data={data} admin={admin}")?;
    output.flush()
}

/// Loads and warms every codec.
pub(crate) async fn load(config: Config, stored: Vec<Stored>) -> Result<Restorer, RunError> {
    let settings = Settings {
        threads: config.decode_threads,
        queue: config.decode_queue,
        max_wait: Duration::from_millis(config.decode_wait_ms),
        max_batch: config.max_batch,
    };
    let points = stored.iter().map(|stored| &stored.bundle.manifest);
    let points = points.filter(|manifest| manifest.point.is_some());
    let forwards = forwards(&config.tails, points.map(|manifest| &manifest.name[..]));
    let forwards = forwards.map_err(RunError::Tail)?;
    let loading = tokio::task::spawn_blocking(move || {
        let engine = Engine::start(
            config.device,
            config.threads_per_forward(),
            config.max_batch,
        )?
        .computing_in(config.precision);
        let mut codecs = Vec::with_capacity(stored.len());
        let mut places = HashMap::new();
        for mut stored in stored {
            let manifest = &stored.bundle.manifest;
            if let Some(point) = manifest.point.clone() {
                let forward = forwards.get(&manifest.name).cloned();
                if forward.is_some() {
                    stored.tail = None;
                }
                let place = Place::new(point, std::mem::take(&mut stored.labels), forward);
                places.insert(stored.bundle.digest.short(), Arc::new(place));
            }
            let decoder = Box::new(engine.load(&stored)?);
            codecs.push(Arc::new(Codec {
                bundle: stored.bundle,
                decoder,
            }));
        }
        let (pool, warmed) = Pool::start(&codecs, settings)?;
        Ok::<_, RunError>((codecs, places, pool, warmed, config))
    });
    let ended = || DecoderError("its thread ended while it was loaded".to_owned());
    let (codecs, places, pool, all_warmed, config) = loading.await.map_err(|_| ended())??;
    for warmed in all_warmed {
        warmed.await.map_err(|_| ended())??;
    }
    Ok(Restorer::new(
        codecs,
        places,
        pool,
        config.limits,
        config.max_pixels_in_hand,
    ))
}
