//! How sure a share is that was counted on a few cases: Wilson's interval (E. B. Wilson, "Probable
//! inference, the law of succession, and statistical inference", JASA 22, 1927).

use serde::{Deserialize, Serialize};

/// Quantile of the normal distribution that leaves 5 % outside, half on each side.
const Z: f64 = 1.959_963_985;

/// A share and where it lies with 95 % confidence, all from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Cases that were counted.
    pub cases: usize,
    /// The share among them.
    pub share: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The interval for `hits` of `cases`; none without a case.
#[must_use]
pub fn interval(hits: usize, cases: usize) -> Option<Interval> {
    if cases == 0 {
        return None;
    }
    let n = cases as f64;
    let share = hits as f64 / n;
    let shrink = 1.0 + Z * Z / n;
    let middle = (share + Z * Z / (2.0 * n)) / shrink;
    let half = Z / shrink * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(Interval {
        cases,
        share,
        low: (middle - half).max(0.0),
        high: (middle + half).min(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // As published tables have them, to more places.
        for (hits, cases, low, high) in [
            (0, 10, 0.0, 0.277_533),
            (5, 10, 0.236_593, 0.763_407),
            (10, 10, 0.722_467, 1.0),
            (95, 100, 0.888_250, 0.978_456),
        ] {
            let found = interval(hits, cases).unwrap();
            assert!((found.low - low).abs() < 1e-5, "{hits}/{cases}: {found:?}");
            assert!(
                (found.high - high).abs() < 1e-5,
                "{hits}/{cases}: {found:?}"
            );
        }
        assert_eq!(interval(0, 0), None);
    }
}
