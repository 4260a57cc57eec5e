//! A configuration that is read again while the sidecar runs: the app is built anew and takes the
//! place of the old one, which lives until its last request is answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use arc_swap::ArcSwap;
use sidecod_sidecar::readiness::Readiness;
use sidecod_sidecar::reload::{self, Applied, Watch};
use tokio::task::JoinSet;

use crate::app::App;
use crate::config::Config;
use crate::plan::probe;

/// Where a configuration comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its file.
    pub file: PathBuf,
    /// The arguments of `--set`.
    pub sets: Vec<String>,
}

impl Source {
    fn files(&self, config: &Config) -> Vec<PathBuf> {
        [vec![self.file.clone()], config.files()].concat()
    }
}

/// The app that answers. Clones share it.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<App>>);

impl Current {
    /// The app, for one request.
    #[must_use]
    pub fn get(&self) -> Arc<App> {
        self.0.load_full()
    }
}

impl From<Arc<App>> for Current {
    fn from(app: Arc<App>) -> Self {
        Self(Arc::new(ArcSwap::new(app)))
    }
}

/// What an app does beside answering: it gets the edge's bundle, looks up names, and probes an
/// idle link. Dropping it ends
/// that.
pub struct Chores(JoinSet<()>);

impl Chores {
    /// Begins.
    #[must_use]
    pub fn start(app: &Arc<App>, config: &Config, readiness: &Readiness) -> Self {
        let mut chores = JoinSet::new();
        if let Some(keeper) = app.keeper(config) {
            let waiting = readiness.block("the edge's bundle");
            let app = app.clone();
            chores.spawn(async move { keeper.keep(&app.link, &app.bundle, waiting).await });
        }
        if !config.listen.transparent.is_empty() {
            let finding = readiness.block("addresses of the destinations");
            let app = app.clone();
            chores.spawn(async move {
                app.listed.look_up().await;
                drop(finding);
                app.listed.keep_up().await;
            });
        }
        let idle = Duration::from_millis(config.plan.probe_idle_ms);
        chores.spawn(probe::keep(app.clone(), idle));
        Self(chores)
    }
}

/// Reads the configuration again whenever it may have changed, for ever.
///
/// # Errors
/// If the process cannot listen for signals.
pub async fn keep(
    source: Source,
    running: Config,
    current: Current,
    mut chores: Chores,
    readiness: Readiness,
) -> std::io::Result<()> {
    let count = |outcome| {
        metrics::counter!("sidecod_device_config_reloads_total", "outcome" => outcome).increment(1);
    };
    let watch = Watch::new(source.files(&running))?;
    reload::keep(watch, count, async || -> Result<Applied> {
        let new = Config::load(&source.file, &source.sets)?;
        let app = Arc::new(current.get().again(&new)?);
        chores.0.abort_all();
        chores = Chores::start(&app, &new, &readiness);
        current.0.store(app);
        Ok(Applied {
            fixed: running.fixed(&new),
            files: source.files(&new),
        })
    })
    .await;
    Ok(())
}
