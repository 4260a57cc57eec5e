//! The device sidecar as a whole: what its parts share, and its start and end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sidecod_sidecar::readiness::Readiness;
use sidecod_sidecar::shutdown::{Shutdown, asked_to_end};
use sidecod_sidecar::upstream::Upstream;
use sidecod_sidecar::{admin, listen, metrics};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::{Config, Route};
use crate::encode::{Codec, Coding, Pool};
use crate::intercept;
use crate::link::Link;

/// What all requests share.
pub struct App {
    pub(crate) routes: Vec<Route>,
    codings: HashMap<String, Arc<Coding>>,
    pub(crate) codec: Arc<Codec>,
    pub(crate) pool: Pool,
    pub(crate) link: Link,
    pub(crate) direct: Option<Upstream>,
    /// Kibibytes of bodies that may still be held.
    pub(crate) held: Arc<Semaphore>,
    pub(crate) body_timeout: Duration,
    pub(crate) keep_server_timing: bool,
}

impl App {
    /// Builds the parts. Nothing is connected yet.
    ///
    /// # Errors
    /// If the bundle cannot be opened, a route names a quality that it has not, or no thread starts.
    pub fn new(config: &Config) -> Result<Self> {
        let (codec, codings) = open(config)?;
        let connect_timeout = Duration::from_millis(config.edge.connect_timeout_ms);
        Ok(Self {
            routes: config.routes.clone(),
            codings,
            codec: Arc::new(codec),
            pool: Pool::start("encode", config.codec.threads, config.codec.queue)?,
            link: Link::new(&config.edge).context("edge")?,
            direct: config
                .direct
                .clone()
                .map(|url| Upstream::new(url, connect_timeout)),
            held: Arc::new(Semaphore::new(config.max_held_mib << 10)),
            body_timeout: Duration::from_millis(config.body_timeout_ms),
            keep_server_timing: config.keep_server_timing,
        })
    }

    /// How a route's inputs are coded; every route has an entry.
    pub(crate) fn coding(&self, route: &Route) -> Option<Arc<Coding>> {
        self.codings.get(&route.name).cloned()
    }
}

/// Opens the bundle and checks the routes against it.
///
/// # Errors
/// If a file is missing or damaged, or a route names a quality that the bundle has not.
pub fn open(config: &Config) -> Result<(Codec, HashMap<String, Arc<Coding>>)> {
    let folder: &Path = &config.codec.bundle;
    let codec = Codec::open(folder, config.limits.clone()).context("codec.bundle")?;
    let manifest = &codec.bundle().manifest;
    let codings = config.routes.iter().map(|route| {
        let coding = route.coding(manifest);
        let coding = coding.map_err(|(key, fault)| anyhow!("route {}: {key}: {fault}", route.name));
        Ok((route.name.clone(), Arc::new(coding?)))
    });
    let codings = codings.collect::<Result<_>>()?;
    Ok((codec, codings))
}

/// Runs the sidecar until it is asked to end.
///
/// # Errors
/// If it cannot start.
pub async fn run(config: Config) -> Result<()> {
    let metrics = metrics::install()?;
    let readiness = Readiness::default();
    let starting = readiness.block("codec");
    let bind = async |key: &str, address| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("{key}: cannot listen on {address}"))
    };
    let data = bind("listen", config.listen).await?;
    let admin = bind("admin", config.admin).await?;
    println!(
        "listening data={} admin={}",
        data.local_addr()?,
        admin.local_addr()?
    );

    let app = Arc::new(App::new(&config)?);
    let (trigger, shutdown) = Shutdown::new();
    let admin = tokio::spawn(admin::serve(admin, readiness, metrics, shutdown.clone()));
    let service = listen::service(move |request| intercept::answer(app.clone(), request));
    let serving =
        tokio::spawn(async move { listen::http1(data, &config.server, service, shutdown).await });
    drop(starting);

    asked_to_end().await?;
    tracing::info!("ending");
    trigger.fire();
    serving.await?;
    admin.await?;
    Ok(())
}
