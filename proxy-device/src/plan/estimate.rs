//! What a link is worth at this moment: its round trip and its bandwidth, from what requests took.

use std::time::Duration;

use tokio::time::Instant;

use super::line::{Expected, Line};

/// Without observations: a usual wireless link, and no more trust in it than in one measurement's
/// hundredth.
const FIRST: Expected = Expected {
    intercept: 0.02,
    intercept_weight: 0.5,
    slope: 8.0 / 10e6,
    slope_weight: 0.01,
    scale: 16_384.0,
};
/// After so many requests an observation counts half.
const HALF_LIFE_REQUESTS: f64 = 8.0;
/// After so many seconds an observation counts half.
const HALF_LIFE_SECONDS: f64 = 30.0;
/// A time that is so many times what was expected, or so small a part of it, says that the link has
/// changed.
const SURPRISE: f64 = 2.0;
/// Differences of less are jitter, seconds.
const JITTER: f64 = 0.01;
/// What the observations from before a change for the worse count: a slow request may have been
/// held up by something else. A fast one was not, and leaves nothing of what was believed before.
const KEEP_WHEN_SLOWER: f64 = 0.2;
/// Bodies of at most so many bytes tell the round trip.
const SMALL: u64 = 512;
/// How much one of them moves it.
const SMALL_GAIN: f64 = 0.3;

/// The estimate for one edge.
///
/// Time less what the edge says it took is `rtt + bytes / bandwidth`; both come from least squares
/// in which recent requests count more.
#[derive(Debug, Clone)]
pub struct Estimate {
    line: Line,
    rtt: Option<f64>,
    last: Option<Instant>,
    observations: u64,
}

impl Default for Estimate {
    fn default() -> Self {
        Self {
            line: Line::new(FIRST),
            rtt: None,
            last: None,
            observations: 0,
        }
    }
}

impl Estimate {
    /// Takes a request of `bytes` whose answer began `took` after it was sent, the edge's own time
    /// taken out.
    pub fn observe(&mut self, now: Instant, bytes: u64, took: Duration) {
        let took = took.as_secs_f64();
        let x = bytes as f64;
        let expected = self.line.at(x);
        let idle = self.last.map_or(0.0, |last| (now - last).as_secs_f64());
        let mut keep = 0.5_f64.powf(1.0 / HALF_LIFE_REQUESTS + idle / HALF_LIFE_SECONDS);
        if took > expected * SURPRISE && took - expected > JITTER {
            keep = keep.min(KEEP_WHEN_SLOWER);
        } else if took < expected / SURPRISE && expected - took > JITTER {
            keep = 0.0;
        }
        // What is expected of the intercept is the round trip as small requests show it; no request
        // takes less.
        let rtt = match self.rtt {
            Some(rtt) if bytes <= SMALL => rtt + (took - rtt) * SMALL_GAIN,
            Some(rtt) => rtt.min(took),
            None if bytes <= SMALL => took,
            None => took.min(FIRST.intercept),
        };
        self.rtt = Some(rtt);
        self.line.expect_intercept(rtt);
        self.line.observe(x, took, keep);
        self.last = Some(now);
        self.observations += 1;
    }

    /// Seconds that a body of so many bytes takes, there and the answer's head back.
    #[must_use]
    pub fn seconds(&self, bytes: f64) -> f64 {
        self.line.at(bytes)
    }

    /// The round trip in seconds.
    #[must_use]
    pub fn rtt(&self) -> f64 {
        self.line.fit().0
    }

    /// Bytes a second.
    #[must_use]
    pub fn bandwidth(&self) -> f64 {
        1.0 / self.line.fit().1.max(1e-12)
    }

    /// When the last request or probe was answered.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Requests and probes so far.
    #[must_use]
    pub fn observations(&self) -> u64 {
        self.observations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: [u64; 6] = [5_200, 48_000, 7_900, 16_000, 5_600, 110_000];

    /// A link whose truth is known.
    #[derive(Clone, Copy)]
    struct Link {
        rtt: f64,
        bits_a_second: f64,
        jitter: f64,
    }

    impl Link {
        fn took(self, bytes: u64, turn: usize) -> Duration {
            let shake = [0.6, -0.9, 0.2, 1.0, -0.4, -0.7, 0.8][turn % 7] * self.jitter;
            Duration::from_secs_f64(self.rtt + bytes as f64 * 8.0 / self.bits_a_second + shake)
        }

        async fn feed(self, estimate: &mut Estimate, sizes: &[u64]) {
            for (turn, &bytes) in sizes.iter().enumerate() {
                tokio::time::advance(Duration::from_millis(200)).await;
                estimate.observe(Instant::now(), bytes, self.took(bytes, turn));
            }
        }
    }

    fn within(found: f64, truth: f64, share: f64) {
        assert!(
            (found / truth - 1.0).abs() <= share,
            "{found} is not {truth}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn mixed_sizes_tell_round_trip_and_bandwidth() {
        for (rtt, megabits) in [(0.02, 0.5), (0.03, 1.0), (0.05, 20.0), (0.004, 100.0)] {
            let link = Link {
                rtt,
                bits_a_second: megabits * 1e6,
                jitter: rtt * 0.05,
            };
            let mut estimate = Estimate::default();
            link.feed(&mut estimate, &MIXED.repeat(4)).await;
            within(estimate.bandwidth() * 8.0, link.bits_a_second, 0.1);
            within(estimate.rtt(), rtt, 0.35);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_one_size_are_predicted_too() {
        let link = Link {
            rtt: 0.03,
            bits_a_second: 2e6,
            jitter: 0.001,
        };
        let mut estimate = Estimate::default();
        link.feed(&mut estimate, &[0, 8192]).await;
        link.feed(&mut estimate, &[5_600; 40]).await;
        within(
            estimate.seconds(5_600.0),
            link.took(5_600, 2).as_secs_f64(),
            0.05,
        );
        within(
            estimate.seconds(40_000.0),
            link.took(40_000, 2).as_secs_f64(),
            0.25,
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_sudden_change_is_believed_within_three_requests() {
        let fast = Link {
            rtt: 0.03,
            bits_a_second: 20e6,
            jitter: 0.002,
        };
        let slow = Link {
            bits_a_second: 1e6,
            ..fast
        };
        let mut estimate = Estimate::default();
        fast.feed(&mut estimate, &[0, 8192]).await;
        fast.feed(&mut estimate, &[40_000; 20]).await;
        slow.feed(&mut estimate, &[40_000; 3]).await;
        within(
            estimate.seconds(40_000.0),
            slow.took(40_000, 2).as_secs_f64(),
            0.3,
        );
        fast.feed(&mut estimate, &[5_600; 6]).await;
        assert!(
            estimate.seconds(40_000.0) < 0.1,
            "{}",
            estimate.seconds(40_000.0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_and_a_lost_packet_are_no_change() {
        let link = Link {
            rtt: 0.03,
            bits_a_second: 10e6,
            jitter: 0.008,
        };
        let mut estimate = Estimate::default();
        link.feed(&mut estimate, &MIXED.repeat(4)).await;
        estimate.observe(Instant::now(), 16_000, Duration::from_millis(270));
        link.feed(&mut estimate, &MIXED.repeat(2)).await;
        within(estimate.seconds(48_000.0), 0.0684, 0.3);
    }
}
