//! What breaks, when, and for how long: three parts, each on its own, by chance from one seed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, sleep_until};

use super::relay::{Mode, Relay};
use super::site::Part;

/// Seconds between two troubles of one part.
const CALM: std::ops::Range<f64> = 1.0..8.0;
/// Seconds that a trouble lasts.
const TROUBLE: std::ops::Range<f64> = 0.2..8.0;

/// Makes trouble until its end, and leaves everything running.
pub(super) struct Trouble {
    seed: u64,
    end: Instant,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Trouble {
    pub fn new(seed: u64, end: Instant) -> Self {
        Self {
            seed,
            end,
            counts: Mutex::default(),
        }
    }

    /// How often each trouble was made.
    pub fn counts(self) -> BTreeMap<&'static str, u64> {
        self.counts.into_inner().unwrap_or_default()
    }

    pub async fn make(&self, edge: &mut Part, link: &Relay, server: &mut Part) -> Result<()> {
        let edge = self.part(edge, 1, ["edge killed", "edge frozen"]);
        let server = self.part(server, 2, ["model server killed", "model server frozen"]);
        let (edge, (), server) = tokio::join!(edge, self.link(link), server);
        edge.and(server)
    }

    async fn part(&self, part: &mut Part, salt: u64, names: [&'static str; 2]) -> Result<()> {
        let mut chance = Rng::with_seed(self.seed ^ salt);
        while self.calm(&mut chance).await {
            let kill = chance.bool();
            self.count(names[usize::from(!kill)]);
            if kill {
                part.kill();
                self.last(&mut chance).await;
                // It waits for the program's first line.
                block_in_place(|| part.start())?;
            } else {
                part.freeze()?;
                self.last(&mut chance).await;
                part.thaw()?;
            }
        }
        Ok(())
    }

    async fn link(&self, link: &Relay) {
        let mut chance = Rng::with_seed(self.seed ^ 3);
        while self.calm(&mut chance).await {
            let (name, mode) = match chance.u8(..3) {
                0 => ("link reset", None),
                1 => ("link cut", Some(Mode::Refuse)),
                _ => ("link black hole", Some(Mode::BlackHole)),
            };
            self.count(name);
            if mode != Some(Mode::BlackHole) {
                link.reset();
            }
            if let Some(mode) = mode {
                link.set(mode);
                self.last(&mut chance).await;
                link.set(Mode::Pass);
            }
        }
    }

    /// Whether there is time for trouble after a pause.
    async fn calm(&self, chance: &mut Rng) -> bool {
        sleep(seconds(chance, CALM)).await;
        Instant::now() < self.end
    }

    async fn last(&self, chance: &mut Rng) {
        sleep_until(self.end.min(Instant::now() + seconds(chance, TROUBLE))).await;
    }

    fn count(&self, name: &'static str) {
        if let Ok(mut counts) = self.counts.lock() {
            *counts.entry(name).or_default() += 1;
        }
    }
}

fn seconds(chance: &mut Rng, range: std::ops::Range<f64>) -> Duration {
    Duration::from_secs_f64(range.start + chance.f64() * (range.end - range.start))
}
