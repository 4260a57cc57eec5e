//! A configuration that is read again while the edge runs.

use std::path::PathBuf;
use std::sync::Arc;

use sidecod_sidecar::reload::{self, Applied, Watch};
use sidecod_sidecar::{BoxError, tls};

use crate::config::Config;
use crate::run::show_expiry;
use crate::serve::Edge;

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

/// Reads the configuration again whenever it may have changed, for ever.
///
/// # Errors
/// If the process cannot listen for signals.
pub async fn keep(
    source: Source,
    running: Config,
    edge: Arc<Edge>,
    tls: Option<Arc<tls::Server>>,
) -> std::io::Result<()> {
    let count = |outcome| {
        metrics::counter!("sidecod_edge_config_reloads_total", "outcome" => outcome).increment(1);
    };
    let watch = Watch::new(source.files(&running))?;
    reload::keep(watch, count, async || -> Result<Applied, BoxError> {
        let new = Config::load(&source.file, &source.sets)?;
        if let (Some(tls), Some(files)) = (&tls, &new.tls) {
            show_expiry(files)?;
            tls.reload(files)?;
        }
        edge.reload(&new);
        Ok(Applied {
            fixed: running.fixed(&new),
            files: source.files(&new),
        })
    })
    .await;
    Ok(())
}
