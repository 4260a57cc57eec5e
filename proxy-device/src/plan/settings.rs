//! What the plan goes by, as the configuration says it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{HeaderMap, HeaderName, HeaderValue};
use sidecod_wire::profile::Profile;

use crate::config::{self, Config};
use crate::encode::Parts;

/// What every plan of a configuration has in common, whatever its bundle.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that encode.
    pub threads: usize,
    /// When an option that was not taken is tried again.
    pub refresh: Duration,
    /// What the options take on this machine.
    pub profile: Option<Arc<Profile>>,
    /// What runs here of a model.
    pub parts: Arc<Parts>,
    force: Option<HeaderName>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 1,
            refresh: Duration::from_millis(config::Plan::default().refresh_ms),
            profile: None,
            parts: Arc::default(),
            force: None,
        }
    }
}

impl Settings {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// If the profile cannot be read, or is none, or a part of a model cannot be opened.
    pub fn new(config: &Config) -> Result<Self> {
        let plan = &config.plan;
        let read = |file: &PathBuf| {
            let context = || format!("plan.profile: {}", file.display());
            let json = std::fs::read(file).with_context(context)?;
            Profile::parse(&json).map(Arc::new).with_context(context)
        };
        let parts = Parts::open(&config.codec.heads, config.codec.local.as_deref());
        Ok(Self {
            parts: Arc::new(parts.context("codec.heads and codec.local")?),
            threads: config.codec.threads,
            refresh: Duration::from_millis(plan.refresh_ms),
            profile: plan.profile.as_ref().map(read).transpose()?,
            force: plan.force_header.as_deref().map(str::parse).transpose()?,
        })
    }

    /// Takes the header that names an option out of a request.
    pub fn forced(&self, headers: &mut HeaderMap) -> Option<HeaderValue> {
        headers.remove(self.force.as_ref()?)
    }
}
