//! What a part of the work takes: as its profile says, corrected by what requests then took.

use sidecod_wire::profile::Part;

use super::line::{Expected, Line};

/// Nothing is expected of a part that was never measured, until it was seen once.
const UNKNOWN: Expected = Expected {
    intercept: 0.0,
    intercept_weight: 1e-3,
    slope: 0.0,
    slope_weight: 1e-3,
    scale: 65_536.0,
};
/// Recent requests over which a correction is averaged.
const RECENT: u64 = 12;
/// An older observation counts so much of the next.
const KEEP: f64 = 0.9;
/// One request moves a prediction at most by this factor: it may have been held up by something else.
const OUTLIER: f64 = 4.0;

/// A mean over recent values.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mean {
    value: f64,
    count: u64,
}

impl Mean {
    /// Takes a value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.value += (value - self.value) / self.count.min(RECENT) as f64;
    }

    /// The mean; none without a value.
    #[must_use]
    pub fn get(&self) -> Option<f64> {
        (self.count > 0).then_some(self.value)
    }
}

/// The time of one part of the work against pixels.
#[derive(Debug, Clone)]
pub struct Times {
    /// Logarithm of measured over profiled.
    correction: Mean,
    line: Line,
    count: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            correction: Mean::default(),
            line: Line::new(UNKNOWN),
            count: 0,
        }
    }
}

impl Times {
    /// Seconds for so many pixels; none where nothing is known.
    #[must_use]
    pub fn predict(&self, profile: Option<&Part>, pixels: f64) -> Option<f64> {
        match profile {
            Some(part) => {
                let correction = self.correction.get().unwrap_or(0.0).exp();
                Some(part.seconds(pixels) * correction)
            }
            None => (self.count > 0).then(|| self.line.at(pixels)),
        }
    }

    /// Takes what a request took.
    pub fn observe(&mut self, profile: Option<&Part>, pixels: f64, seconds: f64) {
        let expected = self.predict(profile, pixels);
        let bounded = match expected {
            Some(expected) if self.count > 0 && expected > 0.0 => {
                seconds.clamp(expected / OUTLIER, expected * OUTLIER)
            }
            _ => seconds,
        };
        self.count += 1;
        self.line.observe(pixels, bounded, KEEP);
        if let Some(part) = profile {
            let profiled = part.seconds(pixels).max(1e-6);
            self.correction.add((bounded.max(1e-6) / profiled).ln());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidecod_wire::profile::Point;

    fn part() -> Part {
        let point = |pixels, seconds| Point {
            pixels,
            seconds,
            spread: 0.0,
        };
        Part::new(
            "p".into(),
            None,
            vec![point(1000, 0.1), point(2000, 0.2), point(4000, 0.8)],
        )
    }

    #[test]
    fn requests_correct_the_profile() {
        let part = part();
        let mut times = Times::default();
        assert!((times.predict(Some(&part), 2000.0).unwrap() - 0.2).abs() < 1e-9);
        for _ in 0..20 {
            times.observe(Some(&part), 2000.0, 0.4);
        }
        // Twice as slow at one size is expected to be twice as slow at another.
        assert!((times.predict(Some(&part), 4000.0).unwrap() - 1.6).abs() < 0.05);
    }

    #[test]
    fn without_a_profile_requests_tell_all() {
        let mut times = Times::default();
        assert_eq!(times.predict(None, 2000.0), None);
        for pixels in [1000.0, 3000.0, 2000.0, 5000.0] {
            times.observe(None, pixels, 0.01 + pixels * 1e-4);
        }
        assert!((times.predict(None, 4000.0).unwrap() - 0.41).abs() < 0.03);
    }

    #[test]
    fn one_slow_request_moves_it_a_little() {
        let mut times = Times::default();
        for _ in 0..20 {
            times.observe(None, 2000.0, 0.1);
        }
        times.observe(None, 2000.0, 60.0);
        assert!(times.predict(None, 2000.0).unwrap() < 0.2);
    }
}
