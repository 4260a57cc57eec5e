//! Readiness by ownership: whoever is not done holds a blocker, and dropping it is being done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The set of what the process still waits for. Ready means that it is empty.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    blockers: Arc<Mutex<(u64, BTreeMap<u64, String>)>>,
}

/// Keeps the process from being ready until it is dropped.
#[derive(Debug)]
pub struct Blocker {
    readiness: Readiness,
    id: u64,
}

impl Readiness {
    /// Adds a blocker. `name` says to people what is waited for.
    #[must_use]
    pub fn block(&self, name: impl Into<String>) -> Blocker {
        let mut blockers = self.lock();
        blockers.0 += 1;
        let id = blockers.0;
        blockers.1.insert(id, name.into());
        Blocker {
            readiness: self.clone(),
            id,
        }
    }

    /// What the process waits for.
    #[must_use]
    pub fn blockers(&self) -> Vec<String> {
        self.lock().1.values().cloned().collect()
    }

    /// Whether nothing is waited for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().1.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, String>)> {
        self.blockers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.readiness.lock().1.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_blocker_is_dropped() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let (one, two) = (
            readiness.block("bundle photo"),
            readiness.clone().block("bundle photo"),
        );
        drop(one);
        assert_eq!(readiness.blockers(), ["bundle photo"]);
        assert!(!readiness.is_ready());
        drop(two);
        assert!(readiness.is_ready());
    }
}
