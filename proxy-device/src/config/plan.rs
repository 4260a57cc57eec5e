//! The keys that the plan goes by.

use std::path::PathBuf;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::option::Fidelity;

/// An option of a route: its name, or its name with what it was measured to keep.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Named {
    /// `"photo:q3"`
    Name(String),
    /// `{ name = "webp:80", agreement = 0.9 }`
    With(Measured),
}

/// An option with its fidelity.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The option.
    pub name: String,
    /// See [`Fidelity::agreement`].
    #[serde(default)]
    pub agreement: Option<f64>,
    /// See [`Fidelity::kl`].
    #[serde(default)]
    pub kl: Option<f64>,
}

impl Named {
    /// The option's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::With(Measured { name, .. }) => name,
        }
    }

    /// What it is said to keep.
    #[must_use]
    pub fn fidelity(&self) -> Fidelity {
        match self {
            Self::Name(_) => Fidelity::default(),
            Self::With(Measured { agreement, kl, .. }) => Fidelity {
                agreement: *agreement,
                kl: *kl,
            },
        }
    }
}

/// How routes with several options choose.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// What `proxy-device profile` wrote on this machine.
    pub profile: Option<PathBuf>,
    /// A header in which a request names the option that it wants, for tests and benchmarks.
    pub force_header: Option<String>,
    /// Milliseconds without a request after which the link is probed; 0 never probes it.
    pub probe_idle_ms: u64,
    /// Milliseconds after which an option that was not taken is tried again if it is worth it.
    pub refresh_ms: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            profile: None,
            force_header: None,
            probe_idle_ms: 30_000,
            refresh_ms: 30_000,
        }
    }
}

impl Plan {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let header = self.force_header.as_deref().map(str::parse::<HeaderName>);
        if let Some(Err(error)) = header {
            return Err(("plan.force_header".to_owned(), error.to_string()));
        }
        if self.refresh_ms == 0 {
            let fault = "must be at least 1";
            return Err(("plan.refresh_ms".to_owned(), fault.to_owned()));
        }
        Ok(())
    }
}
