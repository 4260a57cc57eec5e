//! Work on pictures that is no decoder's: entropy decoding before it, writing files after it.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs such work beside the sockets, one piece a core at a time.
#[derive(Debug, Clone)]
pub struct Workers {
    permits: Arc<Semaphore>,
}

/// The work panicked, or the process ends.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the work on the picture broke off")]
pub struct Broken;

impl Workers {
    /// As many workers as there are cores.
    #[must_use]
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            permits: Arc::new(Semaphore::new(cores)),
        }
    }

    /// Runs `work` when a worker is free.
    ///
    /// # Errors
    /// [`Broken`] if it panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Broken> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Broken)?;
        // The permit goes with the work: it runs to its end even if nobody waits any more.
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
        .map_err(|_| Broken)
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_gives_its_place_back() {
        let workers = Workers::new();
        let places = workers.permits.available_permits();
        for _ in 0..places * 2 {
            let done: Result<(), Broken> = workers.run(|| panic!("of the test")).await;
            assert!(done.is_err());
        }
        assert_eq!(workers.run(|| 7).await.unwrap(), 7);
        assert_eq!(workers.permits.available_permits(), places);
    }
}
