//! Which option is taken: the cheapest, but not at every breath of the link.

use std::time::Duration;

use serde::Serialize;

/// A gain counts at most so much a request, as a share of the time that is taken now.
const GAIN_CAP: f64 = 0.15;
/// Gains of requests that came one after the other have to add up to so much before more bytes are
/// sent: three times 15 %, or more often less.
const GAIN_NEEDED: f64 = 0.45;
/// A smaller gain is none.
const GAIN_LEAST: f64 = 0.03;
/// An option is tried again only if it promises at most so many times the best time.
const WORTH_TRYING: f64 = 1.5;

/// An option that was taken so often is well known. One that was taken less often is tried sooner than
/// after the time that is said, and left for smaller gains.
const WELL_KNOWN: u64 = 8;

/// An option as the choice sees it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Predicted seconds, all parts together.
    pub seconds: f64,
    /// Predicted bytes on the link.
    pub bytes: f64,
    /// Whether it may be taken: it keeps the floor and the bound of the device.
    pub allowed: bool,
    /// How long ago it was last taken; none if it never was.
    pub since: Option<Duration>,
    /// How often it was taken.
    pub count: u64,
}

impl Candidate {
    /// Whether it was not taken for so long that what is known of it may be wrong. Of an option that
    /// was taken a few times little is known, and one odd photo may be most of it.
    fn is_stale(&self, refresh: Duration) -> bool {
        self.since
            .is_none_or(|since| since > refresh.mul_f64(self.known()))
    }

    /// How well it is known, from 0 to 1.
    fn known(&self) -> f64 {
        self.count.min(WELL_KNOWN) as f64 / WELL_KNOWN as f64
    }
}

/// Why an option was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The request's header names it.
    Forced,
    /// There is no other.
    Only,
    /// It is the cheapest.
    Cheapest,
    /// Another is cheaper, but has not proven it for long enough.
    Held,
    /// It has become the cheapest and sends fewer bytes.
    Down,
    /// It has been cheaper for long enough and sends more bytes.
    Up,
    /// It has not been tried, or not for long.
    Refresh,
    /// Nothing else may be taken.
    Last,
}

/// The memory of one route at one size of input.
#[derive(Debug, Clone, Default)]
pub struct Chooser {
    current: Option<usize>,
    /// What the gains that the cheapest of the others promised add up to, whichever that was.
    promise: f64,
}

impl Chooser {
    /// Chooses one of `candidates`; none where none is allowed. One that was not taken for
    /// `refresh` is tried again where it is worth it.
    pub fn choose(&mut self, candidates: &[Candidate], refresh: Duration) -> Option<(usize, Why)> {
        let allowed = || candidates.iter().enumerate().filter(|(_, c)| c.allowed);
        let (best, cheapest) = allowed().min_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds))?;
        if allowed().count() == 1 {
            self.take(best);
            return Some((best, Why::Only));
        }
        let stale = allowed()
            .filter(|(index, candidate)| {
                Some(*index) != self.current
                    && candidate.is_stale(refresh)
                    && candidate.seconds <= cheapest.seconds * WORTH_TRYING
            })
            .max_by_key(|(_, candidate)| candidate.since.unwrap_or(Duration::MAX));
        let current = self.current.filter(|&index| candidates[index].allowed);
        let Some(current) = current else {
            // What was never taken seems cheap because little is known of it: it is tried, and then
            // has to be the cheapest still.
            if cheapest.count == 0 {
                return Some((best, Why::Refresh));
            }
            self.take(best);
            return Some((best, Why::Cheapest));
        };
        if let Some((index, _)) = stale {
            return Some((index, Why::Refresh));
        }
        if best == current {
            self.promise = 0.0;
            return Some((current, Why::Cheapest));
        }
        let now = &candidates[current];
        if cheapest.bytes < now.bytes {
            self.take(best);
            return Some((best, Why::Down));
        }
        let gain = (1.0 - cheapest.seconds / now.seconds).min(GAIN_CAP);
        if gain < GAIN_LEAST {
            self.promise = 0.0;
        } else {
            self.promise += gain;
        }
        if self.promise >= GAIN_NEEDED * now.known() - 1e-9 {
            self.take(best);
            return Some((best, Why::Up));
        }
        Some((current, Why::Held))
    }

    fn take(&mut self, index: usize) {
        self.current = Some(index);
        self.promise = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(30);

    /// Small, middle and large options that were tried a moment ago.
    fn candidates(seconds: [f64; 3]) -> Vec<Candidate> {
        let one = |(index, seconds)| Candidate {
            seconds,
            bytes: [5e3, 2e4, 1e5][index],
            allowed: true,
            since: Some(Duration::from_secs(1)),
            count: WELL_KNOWN,
        };
        seconds.into_iter().enumerate().map(one).collect()
    }

    fn choose(chooser: &mut Chooser, seconds: [f64; 3]) -> (usize, Why) {
        chooser.choose(&candidates(seconds), REFRESH).unwrap()
    }

    #[test]
    fn the_first_choice_is_the_cheapest() {
        let mut chooser = Chooser::default();
        assert_eq!(choose(&mut chooser, [3.0, 2.0, 1.0]), (2, Why::Cheapest));
        assert_eq!(choose(&mut chooser, [3.0, 2.0, 1.0]), (2, Why::Cheapest));
    }

    #[test]
    fn what_was_never_taken_is_tried_and_not_kept_for_that() {
        let mut chooser = Chooser::default();
        let mut list = candidates([0.1, 1.0, 2.0]);
        (list[0].count, list[0].since) = (0, None);
        assert_eq!(chooser.choose(&list, REFRESH), Some((0, Why::Refresh)));
        // It takes longer than it seemed.
        list = candidates([3.0, 1.0, 2.0]);
        list[0].count = 1;
        assert_eq!(chooser.choose(&list, REFRESH), Some((1, Why::Cheapest)));
        assert_eq!(choose(&mut chooser, [3.0, 1.0, 0.9]), (1, Why::Held));
    }

    #[test]
    fn what_is_little_known_is_tried_sooner() {
        let mut chooser = Chooser::default();
        choose(&mut chooser, [1.1, 1.0, 9.0]);
        let mut candidates = candidates([1.1, 1.0, 9.0]);
        candidates[0].since = Some(Duration::from_secs(8));
        let choose = |chooser: &mut Chooser, count: u64| {
            let mut candidates = candidates.clone();
            candidates[0].count = count;
            chooser.choose(&candidates, REFRESH).unwrap()
        };
        assert_eq!(choose(&mut chooser, 2), (0, Why::Refresh));
        assert_eq!(choose(&mut chooser, 3), (1, Why::Cheapest));
        assert_eq!(choose(&mut chooser, 80), (1, Why::Cheapest));
    }

    #[test]
    fn down_at_once() {
        let mut chooser = Chooser::default();
        choose(&mut chooser, [3.0, 2.0, 1.0]);
        assert_eq!(choose(&mut chooser, [1.0, 2.0, 3.0]), (0, Why::Down));
    }

    #[test]
    fn up_after_three_gains_of_15_per_cent() {
        let mut chooser = Chooser::default();
        choose(&mut chooser, [1.0, 2.0, 3.0]);
        for _ in 0..2 {
            assert_eq!(choose(&mut chooser, [1.0, 2.0, 0.5]), (0, Why::Held));
        }
        assert_eq!(choose(&mut chooser, [1.0, 2.0, 0.5]), (2, Why::Up));
    }

    #[test]
    fn up_sooner_from_what_is_little_known() {
        for (count, held) in [(1, 0), (4, 1), (8, 2)] {
            let mut chooser = Chooser::default();
            choose(&mut chooser, [1.0, 2.0, 3.0]);
            let mut list = candidates([1.0, 2.0, 0.5]);
            list[0].count = count;
            for _ in 0..held {
                assert_eq!(chooser.choose(&list, REFRESH), Some((0, Why::Held)));
            }
            assert_eq!(chooser.choose(&list, REFRESH), Some((2, Why::Up)));
        }
    }

    #[test]
    fn up_also_where_two_others_are_the_cheapest_by_turns() {
        let mut chooser = Chooser::default();
        choose(&mut chooser, [1.0, 2.0, 3.0]);
        assert_eq!(choose(&mut chooser, [1.0, 0.6, 0.5]), (0, Why::Held));
        assert_eq!(choose(&mut chooser, [1.0, 0.5, 0.6]), (0, Why::Held));
        assert_eq!(choose(&mut chooser, [1.0, 0.6, 0.5]), (2, Why::Up));
    }

    #[test]
    fn up_later_for_less_and_never_for_a_breath() {
        let mut chooser = Chooser::default();
        choose(&mut chooser, [1.0, 2.0, 3.0]);
        for _ in 0..8 {
            assert_eq!(choose(&mut chooser, [1.0, 2.0, 0.945]), (0, Why::Held));
        }
        assert_eq!(choose(&mut chooser, [1.0, 2.0, 0.945]), (2, Why::Up));
        let mut chooser = Chooser::default();
        choose(&mut chooser, [1.0, 2.0, 3.0]);
        for _ in 0..100 {
            assert_eq!(choose(&mut chooser, [1.0, 2.0, 0.98]), (0, Why::Held));
        }
    }

    #[test]
    fn a_gain_that_is_gone_does_not_count() {
        let mut chooser = Chooser::default();
        choose(&mut chooser, [1.0, 2.0, 3.0]);
        for _ in 0..10 {
            choose(&mut chooser, [1.0, 2.0, 0.5]);
            choose(&mut chooser, [1.0, 2.0, 0.5]);
            assert_eq!(choose(&mut chooser, [1.0, 2.0, 3.0]), (0, Why::Cheapest));
        }
    }

    #[test]
    fn what_is_stale_and_near_is_tried_once_and_does_not_stay() {
        let mut chooser = Chooser::default();
        choose(&mut chooser, [1.0, 1.4, 1.6]);
        let mut list = candidates([1.0, 1.4, 1.6]);
        list[1].since = Some(REFRESH * 2);
        list[2].since = None;
        assert_eq!(chooser.choose(&list, REFRESH), Some((1, Why::Refresh)));
        list[1].since = Some(Duration::ZERO);
        assert_eq!(chooser.choose(&list, REFRESH), Some((0, Why::Cheapest)));
    }

    #[test]
    fn what_is_not_allowed_is_not_taken() {
        let mut list = candidates([1.0, 2.0, 3.0]);
        list[0].allowed = false;
        let mut chooser = Chooser::default();
        assert_eq!(chooser.choose(&list, REFRESH), Some((1, Why::Cheapest)));
        list[1].allowed = false;
        assert_eq!(chooser.choose(&list, REFRESH), Some((2, Why::Only)));
        list[2].allowed = false;
        assert_eq!(chooser.choose(&list, REFRESH), None);
    }
}
