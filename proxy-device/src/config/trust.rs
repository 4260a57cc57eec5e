//! The keys of a route that say how far its codes are trusted.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Route;
use crate::trial::tally::Floor;

/// What is done with the requests of a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Their inputs cross as codes.
    #[default]
    Offload,
    /// They cross as they are, and what the codes would have been is computed beside them.
    Observe,
}

impl Mode {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Offload => "offload",
            Self::Observe => "observe",
        }
    }
}

impl Route {
    /// The floor under the agreement, if there is one.
    #[must_use]
    pub fn floor(&self) -> Option<Floor> {
        self.min_agreement.map(|share| Floor {
            share,
            pause: Duration::from_millis(self.try_again_ms),
        })
    }

    /// The key that is wrong, and why.
    pub(super) fn check_trust(&self) -> Result<(), (&'static str, &'static str)> {
        if !(0.0..=1.0).contains(&self.verify) {
            return Err(("verify", "must be a share of the requests, from 0 to 1"));
        }
        if self.verify > 0.0 && !self.idempotent {
            let why = "a request is sent twice to be compared, which idempotent = false forbids";
            return Err(("verify", why));
        }
        let Some(floor) = self.min_agreement else {
            return Ok(());
        };
        if !(0.0..1.0).contains(&floor) {
            let why = "must be a share of the compared requests, from 0 to less than 1";
            return Err(("min_agreement", why));
        }
        if self.verify == 0.0 {
            let why = "nothing is compared; say verify = 0.02 as well";
            return Err(("min_agreement", why));
        }
        Ok(())
    }
}
