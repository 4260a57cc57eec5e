//! The circuit breaker of one edge.
//!
//! Closed, it lets every request through. Failures in a row open it, and nothing goes through. After
//! a pause, which grows, and a probe that was answered it is half open: one request goes through, and
//! its outcome closes the breaker or opens it again.

use std::time::Duration;

/// Failures in a row that open it.
const FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    phase: Phase,
    /// How often it was opened since a request last succeeded.
    opened: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed { failures: u32 },
    Open,
    HalfOpen { trying: bool },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a request may go through.
    pub fn admits(&self) -> bool {
        matches!(
            self.phase,
            Phase::Closed { .. } | Phase::HalfOpen { trying: false }
        )
    }

    /// Whether nothing goes through until a probe is answered.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// A request goes through.
    pub fn begin(&mut self) {
        if let Phase::HalfOpen { trying } = &mut self.phase {
            *trying = true;
        }
    }

    /// A request was answered.
    pub fn succeeded(&mut self) {
        // An answer to what was sent before it opened proves nothing.
        if self.phase != Phase::Open {
            *self = Self::default();
        }
    }

    /// A request that was sent got no answer.
    pub fn failed(&mut self) {
        match &mut self.phase {
            Phase::Closed { failures } if *failures + 1 < FAILURES => *failures += 1,
            Phase::Closed { .. } | Phase::HalfOpen { .. } => self.trip(),
            Phase::Open => {}
        }
    }

    /// A request ended without saying anything of the edge: the app has gone.
    pub fn abandoned(&mut self) {
        if let Phase::HalfOpen { trying } = &mut self.phase {
            *trying = false;
        }
    }

    /// The edge cannot be used at all.
    pub fn trip(&mut self) {
        self.phase = Phase::Open;
        self.opened = self.opened.saturating_add(1);
    }

    /// A probe was answered.
    pub fn probed(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::HalfOpen { trying: false };
        }
    }

    /// How long to wait before the next attempt to connect.
    pub fn pause(&self) -> Duration {
        match self.opened.checked_sub(1) {
            Some(times) => (FIRST_PAUSE * 2_u32.pow(times.min(10))).min(LONGEST_PAUSE),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker.failed();
            breaker.failed();
            assert!(breaker.admits());
            breaker.succeeded();
        }
        for _ in 0..3 {
            breaker.failed();
        }
        assert!(breaker.is_open() && !breaker.admits());
        breaker.succeeded();
        assert!(breaker.is_open());
    }

    #[test]
    fn half_open_lets_one_request_through_and_it_decides() {
        let mut breaker = Breaker::default();
        breaker.trip();
        breaker.probed();
        assert!(breaker.admits());
        breaker.begin();
        assert!(!breaker.admits());
        breaker.abandoned();
        assert!(breaker.admits());
        breaker.begin();
        breaker.failed();
        assert!(breaker.is_open());
        breaker.probed();
        breaker.begin();
        breaker.succeeded();
        assert!(breaker.admits());
        breaker.begin();
        assert!(breaker.admits());
    }

    #[test]
    fn pauses_grow_until_a_request_succeeds() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.pause(), Duration::ZERO);
        breaker.trip();
        assert_eq!(breaker.pause(), FIRST_PAUSE);
        breaker.trip();
        assert_eq!(breaker.pause(), FIRST_PAUSE * 2);
        for _ in 0..40 {
            breaker.trip();
        }
        assert_eq!(breaker.pause(), LONGEST_PAUSE);
        breaker.probed();
        assert_eq!(breaker.pause(), LONGEST_PAUSE);
        breaker.succeeded();
        assert_eq!(breaker.pause(), Duration::ZERO);
    }
}
