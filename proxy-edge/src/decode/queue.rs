//! The pictures that wait for a decode thread.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Gauge;

use super::job::Job;

/// The queue holds as many pictures as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many pictures are waiting to be decoded as are allowed, or as can be in time")]
pub struct Full;

pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    bounds: Bounds,
    depth: Gauge,
}

/// What the queue may come to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Pictures that wait.
    pub pictures: usize,
    /// How long a picture may be expected to wait.
    pub wait: Duration,
    /// Threads that take from it.
    pub threads: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
    /// Seconds that a place of the latent has taken lately, for each codec.
    per_place: BTreeMap<[u8; 8], f64>,
}

/// Share of the newest measurement in [`State::per_place`].
const NEWEST: f64 = 0.2;

impl Queue {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Condvar::new(),
            bounds,
            depth: metrics::gauge!("sidecod_edge_decode_queue_depth"),
        }
    }

    /// Adds a picture that has just arrived.
    pub fn push(&self, job: Job) -> Result<(), Full> {
        let mut state = self.lock();
        if self.is_full(&state) {
            // Those that nobody waits for must not keep others out.
            state.jobs.retain(|job| !job.is_abandoned());
        }
        if state.closed || self.is_full(&state) {
            return Err(Full);
        }
        self.add(state, job);
        Ok(())
    }

    /// Whether a further picture would be one too many, or would wait too long.
    fn is_full(&self, state: &State) -> bool {
        let work = |job: &Job| {
            let per_place = state.per_place.get(&job.key().codec);
            job.places_left() as f64 * per_place.unwrap_or(&0.0)
        };
        let wait = state.jobs.iter().map(work).sum::<f64>() / self.bounds.threads as f64;
        state.jobs.len() >= self.bounds.pictures || wait > self.bounds.wait.as_secs_f64()
    }

    /// Notes how long a thread has taken for places of a codec's latent.
    pub fn took(&self, codec: [u8; 8], places: usize, time: Duration) {
        let newest = time.as_secs_f64() / places.max(1) as f64;
        let mut state = self.lock();
        let per_place = state.per_place.entry(codec).or_insert(newest);
        *per_place += NEWEST * (newest - *per_place);
    }

    /// Puts a picture back of which some windows are decoded. It was admitted once: there is always
    /// room for it.
    pub fn put_back(&self, job: Job) {
        let state = self.lock();
        if !state.closed {
            self.add(state, job);
        }
    }

    /// Waits for a picture, and takes with it others of the same key until there are windows for a
    /// whole batch. None: the queue is closed.
    pub fn take(&self, room: impl Fn(&Job) -> usize) -> Option<Vec<Job>> {
        let mut state = self.lock();
        let first = loop {
            if state.closed {
                return None;
            }
            match state.jobs.pop_front() {
                Some(job) if job.is_abandoned() => {}
                Some(job) => break job,
                None => {
                    state = self
                        .arrived
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        let (key, room, mut windows) = (first.key(), room(&first), first.left());
        let mut taken = vec![first];
        let mut at = 0;
        while windows < room && at < state.jobs.len() {
            if state.jobs[at].key() == key && !state.jobs[at].is_abandoned() {
                let Some(job) = state.jobs.remove(at) else {
                    break;
                };
                windows += job.left();
                taken.push(job);
            } else {
                at += 1;
            }
        }
        self.depth.set(state.jobs.len() as f64);
        Some(taken)
    }

    /// Gives up what waits, and ends every thread that takes.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.arrived.notify_all();
    }

    /// Pictures that wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }

    fn add(&self, mut state: MutexGuard<'_, State>, job: Job) {
        state.jobs.push_back(job);
        self.depth.set(state.jobs.len() as f64);
        drop(state);
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
