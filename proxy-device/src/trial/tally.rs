//! What the comparisons of a route have come to, and what follows: whether its codes are trusted.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::wilson::{Interval, interval};

/// Comparisons that count, the latest: what the model does today matters, not what it did a year ago.
const WINDOW: usize = 500;
/// With fewer of them nothing is judged.
pub const ENOUGH: usize = 20;

/// A request that was answered both ways.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// Whether the answers say the same.
    pub agree: bool,
    /// Time to the head of the answer with the code, encoding included.
    pub code: Duration,
    /// The same with the original.
    pub original: Duration,
}

/// Whether the codes of a route give the answers of the originals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// They are sent.
    Trusted,
    /// They are not sent before this time.
    Distrusted(Instant),
    /// The app gets the answers of originals, while codes are tried beside them.
    OnTrial,
}

/// The floor under the agreement of a route.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    /// The least share of requests that have to agree.
    pub share: f64,
    /// How long codes are not sent after that.
    pub pause: Duration,
}

/// What a comparison has changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// The agreement is below the floor for all that is known.
    Fell(Interval),
    /// It has been found above.
    Rose(Interval),
}

/// The comparisons of a route.
#[derive(Debug)]
pub struct Tally {
    window: VecDeque<Pair>,
    floor: Option<Floor>,
    trust: Trust,
    /// That of the window before it was begun anew.
    before: Option<Interval>,
}

impl Tally {
    /// No comparison yet: the codes are trusted.
    #[must_use]
    pub fn new(floor: Option<Floor>) -> Self {
        Self {
            window: VecDeque::new(),
            floor,
            trust: Trust::Trusted,
            before: None,
        }
    }

    /// Whether codes are trusted at this time.
    pub fn trust(&mut self, now: Instant) -> Trust {
        if let Trust::Distrusted(until) = self.trust
            && now >= until
        {
            self.trust = Trust::OnTrial;
        }
        self.trust
    }

    /// Adds a comparison. Codes fall out of trust when even the upper end of the interval is below
    /// the floor, and come back when as many of the tried ones agree as the floor says.
    pub fn add(&mut self, pair: Pair, now: Instant) -> Option<Change> {
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(pair);
        let floor = self.floor?;
        let found = self.agreement().filter(|found| found.cases >= ENOUGH)?;
        match self.trust {
            Trust::Trusted | Trust::OnTrial if found.high < floor.share => {
                self.trust = Trust::Distrusted(now + floor.pause);
                self.before = Some(found);
                self.window.clear();
                Some(Change::Fell(found))
            }
            Trust::OnTrial if found.share >= floor.share => {
                self.trust = Trust::Trusted;
                Some(Change::Rose(found))
            }
            _ => None,
        }
    }

    /// The share that agrees, of the window or, where that has just been begun, of the one before.
    #[must_use]
    pub fn agreement(&self) -> Option<Interval> {
        let hits = self.window.iter().filter(|pair| pair.agree).count();
        interval(hits, self.window.len()).or(self.before)
    }

    /// Means of the times of the window, with the code and with the original.
    #[must_use]
    pub fn times(&self) -> Option<(Duration, Duration)> {
        let cases = u32::try_from(self.window.len()).ok().filter(|n| *n > 0)?;
        let sum = |time: fn(&Pair) -> Duration| self.window.iter().map(time).sum::<Duration>();
        Some((
            sum(|pair| pair.code) / cases,
            sum(|pair| pair.original) / cases,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Floor = Floor {
        share: 0.9,
        pause: Duration::from_mins(10),
    };

    fn pair(agree: bool) -> Pair {
        Pair {
            agree,
            code: Duration::from_millis(20),
            original: Duration::from_millis(50),
        }
    }

    fn add(tally: &mut Tally, agree: bool, times: usize, now: Instant) -> Option<Change> {
        (0..times).fold(None, |change, _| tally.add(pair(agree), now).or(change))
    }

    #[tokio::test(start_paused = true)]
    async fn codes_fall_out_of_trust_and_come_back() {
        let now = Instant::now();
        let mut tally = Tally::new(Some(FLOOR));
        assert_eq!(add(&mut tally, false, ENOUGH - 1, now), None);
        let Some(Change::Fell(found)) = add(&mut tally, false, 1, now) else {
            panic!("it is sure by now")
        };
        assert!(found.cases == ENOUGH && found.high < 0.9);
        assert_eq!(tally.trust(now), Trust::Distrusted(now + FLOOR.pause));
        assert_eq!(tally.agreement(), Some(found));
        let later = now + FLOOR.pause;
        assert_eq!(tally.trust(later), Trust::OnTrial);
        assert_eq!(add(&mut tally, true, ENOUGH - 1, later), None);
        assert!(matches!(
            add(&mut tally, true, 1, later),
            Some(Change::Rose(_))
        ));
        assert_eq!(tally.trust(later), Trust::Trusted);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_still_be_above_the_floor_is_kept() {
        let now = Instant::now();
        let mut tally = Tally::new(Some(FLOOR));
        add(&mut tally, true, 17, now);
        // 17 of 20 is below 0.9, the upper end of its interval is not.
        assert_eq!(add(&mut tally, false, 3, now), None);
        assert_eq!(tally.trust(now), Trust::Trusted);
        let mut tally = Tally::new(None);
        assert_eq!(add(&mut tally, false, 100, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_is_bounded_and_times_are_means() {
        let now = Instant::now();
        let mut tally = Tally::new(None);
        add(&mut tally, false, 10, now);
        add(&mut tally, true, WINDOW, now);
        let found = tally.agreement().unwrap();
        assert_eq!((found.cases, found.share), (WINDOW, 1.0));
        let times = (Duration::from_millis(20), Duration::from_millis(50));
        assert_eq!(tally.times(), Some(times));
    }
}
