//! Codes on trial: some requests of a route are sent both ways, as a code and as they are, and the
//! answers compared. The app gets the first of the two and waits for nothing; the other is asked for
//! when the app has its answer, by at most [`AT_ONCE`] requests at a time, in memory that counts as
//! held. Answers are compared up to [`MAX_ANSWER`] bytes and never logged.
//!
//! A route whose answers agree too rarely passes through for a while, then gives the app the answers
//! of originals until enough tried codes agree.

pub mod compare;
mod follow;
pub mod report;
pub mod tally;
mod tee;
pub mod wilson;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::{Mode, Route};
use crate::encode::Pool;
use tally::{Change, Pair, Tally, Trust};

pub(crate) use follow::{Held, Led, follow};

/// Requests that are on trial at a time, with their bodies.
const AT_ONCE: usize = 2;
/// Bytes of an answer that is compared.
const MAX_ANSWER: usize = 1 << 20;

/// The trials of all routes.
pub struct Trials {
    routes: HashMap<String, Arc<Trial>>,
    places: Arc<Semaphore>,
    /// Encodes what no app waits for, so that nobody who waits stands behind it.
    pool: Pool,
    begun: Instant,
}

/// The trial of a route.
pub struct Trial {
    route: Route,
    dice: RandomState,
    thrown: AtomicU64,
    state: Mutex<State>,
}

struct State {
    tally: Tally,
    counts: Counts,
}

/// What a route's requests have come to since the start.
#[derive(Debug, Default, Clone)]
struct Counts {
    /// Requests that could have been coded.
    requests: u64,
    /// Of these, those that crossed as codes, and the bytes of their bodies and codes.
    coded: Saved,
    /// Those whose codes were computed and not sent.
    observed: Saved,
    /// Time that computing these took.
    encoding: Duration,
    /// Bytes that were sent only to be compared.
    verify_bytes: u64,
    /// Comparisons that told nothing.
    unusable: u64,
    /// Answers that did not come.
    failed: u64,
    /// Requests that were chosen, and found no place.
    skipped: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Saved {
    requests: u64,
    original: u64,
    code: u64,
}

/// How a request is to be sent, and what is done beside it.
pub(crate) struct Ticket {
    trial: Arc<Trial>,
    not_coded: Option<&'static str>,
    task: Option<(Task, OwnedSemaphorePermit)>,
}

/// What is done beside a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// Compute what the code would have been.
    Measure,
    /// Send it the other way as well, and compare.
    Compare,
}

impl Ticket {
    /// Why the request is not to be coded, if it is not.
    pub fn not_coded(&self) -> Option<&'static str> {
        self.not_coded
    }
}

impl Trials {
    /// The trials of these routes; no comparison has been made.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(routes: &[Route]) -> std::io::Result<Self> {
        let trial = |route: &Route| (route.name.clone(), Arc::new(Trial::new(route)));
        Ok(Self {
            routes: routes.iter().map(trial).collect(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            pool: Pool::start("trial", 1, AT_ONCE)?,
            begun: Instant::now(),
        })
    }

    /// How a request of a route is to be sent.
    pub(crate) fn ticket(&self, route: &Route) -> Ticket {
        // Every route has one; a route of another configuration starts anew.
        let trial = self.routes.get(&route.name).cloned();
        let trial = trial.unwrap_or_else(|| Arc::new(Trial::new(route)));
        let (not_coded, task) = trial.draw();
        let task = task.and_then(|task| {
            let place = self.places.clone().try_acquire_owned().ok();
            if place.is_none() {
                trial.count_skipped();
            }
            Some((task, place?))
        });
        Ticket {
            trial,
            not_coded,
            task,
        }
    }
}

impl Trial {
    fn new(route: &Route) -> Self {
        metrics::gauge!("sidecod_device_trusted", "route" => route.name.clone()).set(1.0);
        Self {
            dice: RandomState::new(),
            thrown: AtomicU64::new(0),
            state: Mutex::new(State {
                tally: Tally::new(route.floor()),
                counts: Counts::default(),
            }),
            route: route.clone(),
        }
    }

    /// Why the next request is not to be coded, if it is not, and what is to be done beside it.
    fn draw(&self) -> (Option<&'static str>, Option<Task>) {
        let chosen = self.chosen().then_some(Task::Compare);
        if self.route.mode == Mode::Observe {
            return (Some("observe"), chosen.or(Some(Task::Measure)));
        }
        match self.state().tally.trust(Instant::now()) {
            Trust::Trusted => (None, chosen),
            Trust::OnTrial => (Some("distrusted"), chosen),
            Trust::Distrusted(_) => (Some("distrusted"), None),
        }
    }

    /// Whether this one is of the share that is compared.
    fn chosen(&self) -> bool {
        let throw = self.thrown.fetch_add(1, Ordering::Relaxed);
        let random = self.dice.hash_one(throw) as f64 / u64::MAX as f64;
        self.route.verify > 0.0 && random <= self.route.verify
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        self.route.name.clone()
    }

    /// Counts a request that could have been coded.
    fn count_request(&self) {
        self.state().counts.requests += 1;
    }

    /// Counts a request that has crossed as a code.
    fn count_coded(&self, original: usize, code: usize) {
        self.state().counts.coded.add(original, code);
        for (form, bytes) in [("original", original), ("code", code)] {
            metrics::counter!("sidecod_device_coded_bytes_total", "route" => self.name(), "form" => form)
                .increment(bytes as u64);
        }
    }

    /// Counts a request whose code was computed, and not sent in its place.
    fn count_observed(&self, original: usize, code: usize, took: Duration) {
        let mut state = self.state();
        state.counts.observed.add(original, code);
        state.counts.encoding += took;
        drop(state);
        for (form, bytes) in [("original", original), ("code", code)] {
            metrics::counter!("sidecod_device_observed_bytes_total", "route" => self.name(), "form" => form)
                .increment(bytes as u64);
        }
    }

    /// Counts bytes that are sent to be compared.
    fn count_verify_bytes(&self, bytes: usize) {
        self.state().counts.verify_bytes += bytes as u64;
        metrics::counter!("sidecod_device_verify_bytes_total", "route" => self.name())
            .increment(bytes as u64);
    }

    fn count_skipped(&self) {
        self.state().counts.skipped += 1;
        self.count_verdict("skipped");
    }

    fn count_failed(&self) {
        self.state().counts.failed += 1;
        self.count_verdict("failed");
    }

    fn count_unusable(&self) {
        self.state().counts.unusable += 1;
        self.count_verdict("unusable");
    }

    fn count_verdict(&self, verdict: &'static str) {
        metrics::counter!("sidecod_device_verify_total", "route" => self.name(), "verdict" => verdict)
            .increment(1);
    }

    /// Adds a comparison, and says what follows from it.
    fn add(&self, pair: Pair) {
        self.count_verdict(if pair.agree { "agree" } else { "disagree" });
        for (form, time) in [("code", pair.code), ("original", pair.original)] {
            metrics::histogram!("sidecod_device_verify_seconds", "route" => self.name(), "form" => form)
                .record(time);
        }
        let (change, agreement) = {
            let mut state = self.state();
            (
                state.tally.add(pair, Instant::now()),
                state.tally.agreement(),
            )
        };
        if let Some(found) = agreement {
            for (bound, value) in [
                ("share", found.share),
                ("low", found.low),
                ("high", found.high),
            ] {
                metrics::gauge!("sidecod_device_agreement_ratio", "route" => self.name(), "bound" => bound)
                    .set(value);
            }
        }
        self.say(change);
    }

    fn say(&self, change: Option<Change>) {
        // What it would come to is in the report; nothing is sent that could be kept back.
        if self.route.mode == Mode::Observe {
            return;
        }
        let trusted = metrics::gauge!("sidecod_device_trusted", "route" => self.name());
        let (route, floor) = (&self.route.name, self.route.min_agreement);
        match change {
            Some(Change::Fell(found)) => {
                trusted.set(0.0);
                tracing::warn!(
                    route,
                    floor,
                    agreement = found.share,
                    low = found.low,
                    high = found.high,
                    compared = found.cases,
                    again_in_ms = self.route.try_again_ms,
                    "the answers to codes agree too rarely: the route passes through"
                );
            }
            Some(Change::Rose(found)) => {
                trusted.set(1.0);
                tracing::info!(
                    route,
                    floor,
                    agreement = found.share,
                    compared = found.cases,
                    "the answers to codes agree again: the route is coded"
                );
            }
            None => {}
        }
    }
}

impl Saved {
    fn add(&mut self, original: usize, code: usize) {
        self.requests += 1;
        self.original += original as u64;
        self.code += code as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(keys: &str) -> Route {
        let text = format!("name = \"r\"\npath = \"/\"\n{keys}");
        toml::from_str(&text).unwrap()
    }

    fn pair(agree: bool) -> Pair {
        Pair {
            agree,
            code: Duration::from_millis(1),
            original: Duration::from_millis(2),
        }
    }

    #[tokio::test]
    async fn the_share_is_kept_and_places_are_bounded() {
        let trial = Trial::new(&route("verify = 0.1"));
        let chosen = (0..10_000).filter(|_| trial.chosen()).count();
        assert!((800..1200).contains(&chosen), "{chosen}");
        let never = Trial::new(&route(""));
        assert!((0..1000).all(|_| !never.chosen()));

        let route = route("verify = 1.0");
        let trials = Trials::start(std::slice::from_ref(&route)).unwrap();
        let tickets: Vec<_> = (0..AT_ONCE + 3).map(|_| trials.ticket(&route)).collect();
        let with = |tickets: &[Ticket]| tickets.iter().filter(|t| t.task.is_some()).count();
        assert_eq!(with(&tickets), AT_ONCE);
        assert_eq!(trials.routes["r"].state().counts.skipped, 3);
        drop(tickets);
        assert!(trials.ticket(&route).task.is_some());
    }

    #[tokio::test]
    async fn observing_sends_nothing_as_a_code() {
        let trial = Trial::new(&route("mode = \"observe\""));
        assert_eq!(trial.draw(), (Some("observe"), Some(Task::Measure)));
        let trial = Trial::new(&route(
            "mode = \"observe\"\nverify = 1.0\nmin_agreement = 0.5",
        ));
        (0..100).for_each(|_| trial.add(pair(false)));
        assert_eq!(trial.draw(), (Some("observe"), Some(Task::Compare)));
    }

    #[tokio::test(start_paused = true)]
    async fn below_the_floor_a_route_passes_through_and_is_tried_again() {
        let trial = Trial::new(&route(
            "verify = 1.0\nmin_agreement = 0.9\ntry_again_ms = 5000",
        ));
        assert_eq!(trial.draw(), (None, Some(Task::Compare)));
        (0..tally::ENOUGH).for_each(|_| trial.add(pair(false)));
        assert_eq!(trial.draw(), (Some("distrusted"), None));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(trial.draw(), (Some("distrusted"), Some(Task::Compare)));
        (0..tally::ENOUGH).for_each(|_| trial.add(pair(true)));
        assert_eq!(trial.draw(), (None, Some(Task::Compare)));
    }
}
