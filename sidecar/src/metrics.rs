//! Metrics through the `metrics` facade, rendered for Prometheus.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

pub use metrics_exporter_prometheus::{BuildError, PrometheusHandle};

/// From a tenth of a millisecond to a minute.
const SECONDS: [f64; 18] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0, 30.0, 60.0,
];
/// Requests decoded together.
const BATCH: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
/// How often values that histograms collect are folded into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Makes the process count, and gives what renders the counts. Call it once, inside a runtime.
///
/// # Errors
/// If another recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), &BATCH)?
        .install_recorder()?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(UPKEEP);
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// The handles of a metric by the value of a label. Each is looked up once: that takes longer than what
/// is then done with it. The recorder has to be there before the first is used.
pub struct Handles<H> {
    look_up: Box<dyn Fn(&'static str) -> H + Send + Sync>,
    known: RwLock<Vec<(&'static str, H)>>,
}

impl<H: Clone> Handles<H> {
    /// Handles that are looked up so.
    #[must_use]
    pub fn new(look_up: impl Fn(&'static str) -> H + Send + Sync + 'static) -> Self {
        Self {
            look_up: Box::new(look_up),
            known: RwLock::default(),
        }
    }

    /// The handle for this value.
    #[must_use]
    pub fn get(&self, value: &'static str) -> H {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handle)) = known.iter().find(|(known, _)| *known == value) {
            return handle.clone();
        }
        drop(known);
        let handle = (self.look_up)(value);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.push((value, handle.clone()));
        handle
    }
}

/// Counts one more of a gauge as long as it lives.
pub struct Gauged(metrics::Gauge);

impl Gauged {
    /// One more.
    #[must_use]
    pub fn new(gauge: metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
