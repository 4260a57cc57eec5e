//! A straight line through recent observations.

/// Least squares of y against x in which older observations count less, and an expectation counts
/// as a few observations more, so that the line is known before there is any, and stays known where
/// all of them are at one x. Neither the intercept nor the slope is ever negative.
#[derive(Debug, Clone)]
pub struct Line {
    expected: Expected,
    n: f64,
    x: f64,
    xx: f64,
    y: f64,
    xy: f64,
}

/// What is expected without observations, and by how many observations that counts.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Of y where x is 0.
    pub intercept: f64,
    /// How much that counts.
    pub intercept_weight: f64,
    /// Of y for each x.
    pub slope: f64,
    /// How much that counts, in observations at the x of `scale`.
    pub slope_weight: f64,
    /// A usual x.
    pub scale: f64,
}

impl Line {
    /// A line of which only the expectation is known.
    #[must_use]
    pub fn new(expected: Expected) -> Self {
        Self {
            expected,
            n: 0.0,
            x: 0.0,
            xx: 0.0,
            y: 0.0,
            xy: 0.0,
        }
    }

    /// Takes an observation; what was seen before counts `keep` of what it did, 0 to 1.
    pub fn observe(&mut self, x: f64, y: f64, keep: f64) {
        self.forget(keep);
        let x = x / self.expected.scale;
        self.n += 1.0;
        self.x += x;
        self.xx += x * x;
        self.y += y;
        self.xy += x * y;
    }

    /// Makes what was seen count `keep` of what it did.
    pub fn forget(&mut self, keep: f64) {
        for sum in [
            &mut self.n,
            &mut self.x,
            &mut self.xx,
            &mut self.y,
            &mut self.xy,
        ] {
            *sum *= keep;
        }
    }

    /// Expects another intercept.
    pub fn expect_intercept(&mut self, intercept: f64) {
        self.expected.intercept = intercept;
    }

    /// How much the observations count, in fresh ones.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.n
    }

    /// Intercept and slope.
    #[must_use]
    pub fn fit(&self) -> (f64, f64) {
        let Expected {
            intercept,
            intercept_weight,
            slope,
            slope_weight,
            scale,
        } = self.expected;
        let slope = slope * scale;
        // Normal equations with the expectation as ridge: [n x; x xx] [a b] = [y xy].
        let (n, xx) = (self.n + intercept_weight, self.xx + slope_weight);
        let (y, xy) = (
            self.y + intercept_weight * intercept,
            self.xy + slope_weight * slope,
        );
        let determinant = n * xx - self.x * self.x;
        let (mut a, mut b) = (
            (y * xx - xy * self.x) / determinant,
            (n * xy - self.x * y) / determinant,
        );
        if b < 0.0 {
            (a, b) = (y / n, 0.0);
        }
        if a < 0.0 {
            (a, b) = (0.0, (xy / xx).max(0.0));
        }
        (a, b / scale)
    }

    /// y at x.
    #[must_use]
    pub fn at(&self, x: f64) -> f64 {
        let (intercept, slope) = self.fit();
        intercept + slope * x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line::new(Expected {
            intercept: 1.0,
            intercept_weight: 1e-3,
            slope: 0.1,
            slope_weight: 1e-3,
            scale: 10.0,
        })
    }

    fn near(line: &Line, (a, b): (f64, f64)) {
        let (fit_a, fit_b) = line.fit();
        assert!((fit_a - a).abs() < 0.05 * (a + 1.0), "{fit_a} is not {a}");
        assert!((fit_b - b).abs() < 0.05 * (b + 0.1), "{fit_b} is not {b}");
    }

    #[test]
    fn it_starts_as_expected_and_finds_the_truth() {
        let mut line = line();
        near(&line, (1.0, 0.1));
        for x in [1.0, 20.0, 5.0, 12.0, 30.0] {
            line.observe(x, 4.0 + 0.5 * x, 0.9);
        }
        near(&line, (4.0, 0.5));
    }

    #[test]
    fn the_new_counts_more_than_the_old() {
        let mut line = line();
        for x in [1.0, 20.0, 5.0, 12.0, 30.0].repeat(5) {
            line.observe(x, 4.0 + 0.5 * x, 0.8);
        }
        for x in [1.0, 20.0, 5.0, 12.0, 30.0].repeat(5) {
            line.observe(x, 2.0 + 3.0 * x, 0.8);
        }
        near(&line, (2.0, 3.0));
    }

    #[test]
    fn one_size_alone_gives_the_rest_to_the_slope() {
        let mut line = Line::new(Expected {
            intercept: 2.0,
            intercept_weight: 1.0,
            slope: 0.0,
            slope_weight: 1e-6,
            scale: 10.0,
        });
        for _ in 0..20 {
            line.observe(10.0, 12.0, 0.9);
        }
        near(&line, (2.0, 1.0));
    }

    #[test]
    fn nothing_is_negative() {
        let mut line = line();
        for (x, y) in [(1.0, 9.0), (10.0, 5.0), (20.0, 1.0)] {
            line.observe(x, y, 1.0);
        }
        let (a, b) = line.fit();
        assert!(a >= 0.0 && b >= 0.0, "{a} {b}");
        let mut line = self::line();
        for (x, y) in [(10.0, 1.0), (20.0, 30.0)] {
            line.observe(x, y, 1.0);
        }
        let (a, b) = line.fit();
        assert!(a >= 0.0 && b >= 0.0, "{a} {b}");
    }
}
