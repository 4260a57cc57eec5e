//! Resident memory of the sidecars, second by second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::process::mib;

/// What a process has in memory.
const RESIDENT: &str = "VmRSS";
/// What is compared: the first and the last of this time, or of half of the run where that is less.
const PART: Duration = Duration::from_mins(1);

/// Median MiB of a sidecar at the beginning and at the end.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Memory {
    /// In the first minute.
    pub first_mib: f64,
    /// In the last minute.
    pub last_mib: f64,
    /// The most that was seen.
    pub peak_mib: f64,
}

/// Both sidecars.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Both {
    /// The device sidecar, which runs all the time.
    pub device: Memory,
    /// The edge sidecar, which may have been started again.
    pub edge: Memory,
}

impl Both {
    /// Each with its name.
    #[must_use]
    pub fn each(&self) -> [(&'static str, Memory); 2] {
        [("proxy-device", self.device), ("proxy-edge", self.edge)]
    }
}

/// Measures until `end`. `edge` is the process that is the edge now; 0 is none.
pub async fn until(end: Instant, device: u32, edge: Arc<AtomicU32>) -> Both {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begin = Instant::now();
    let (mut of_device, mut of_edge) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        ticks.tick().await;
        let at = begin.elapsed();
        for (process, samples) in [
            (device, &mut of_device),
            (edge.load(Ordering::Relaxed), &mut of_edge),
        ] {
            samples.extend(mib(process, RESIDENT).map(|mib| (at, mib)));
        }
    }
    let whole = begin.elapsed();
    Both {
        device: summary(&of_device, whole),
        edge: summary(&of_edge, whole),
    }
}

fn summary(samples: &[(Duration, f64)], whole: Duration) -> Memory {
    let part = PART.min(whole / 2);
    let median = |wanted: &dyn Fn(Duration) -> bool| {
        let mut values: Vec<f64> = samples
            .iter()
            .filter(|(at, _)| wanted(*at))
            .map(|(_, mib)| *mib)
            .collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Memory {
        first_mib: median(&|at| at <= part),
        last_mib: median(&|at| at + part >= whole),
        peak_mib: samples.iter().map(|(_, mib)| *mib).fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_the_ends_and_the_peak_of_all() {
        let samples: Vec<_> = (0..300)
            .map(|at| {
                (
                    Duration::from_secs(at),
                    if at == 150 { 99.0 } else { at as f64 / 100.0 },
                )
            })
            .collect();
        let memory = summary(&samples, Duration::from_mins(5));
        assert!((memory.first_mib - 0.3).abs() < 0.02 && (memory.last_mib - 2.7).abs() < 0.02);
        assert!((memory.peak_mib - 99.0).abs() < f64::EPSILON);
        assert!(mib(std::process::id(), RESIDENT).unwrap() > 1.0);
    }
}
