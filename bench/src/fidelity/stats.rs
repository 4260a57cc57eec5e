//! Means, intervals by bootstrap, and where a codec's curve reaches a fidelity.

/// What one crop gave.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Index of its photo.
    pub photo: usize,
    /// Bytes of the file or frame.
    pub bytes: f64,
    /// KL divergence to the uncompressed answer, nats.
    pub kl: f64,
    /// 1 if the first class is the same.
    pub agreement: f64,
    /// 1 if the uncompressed first class is among the first five.
    pub top5: f64,
    /// Peak signal-to-noise ratio, dB.
    pub psnr: f64,
    /// Milliseconds.
    pub encode_ms: f64,
    /// Milliseconds.
    pub decode_ms: f64,
}

/// A point of a codec's curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Mean bytes.
    pub bytes: f64,
    /// Mean KL divergence.
    pub kl: f64,
    /// Share of crops with the same first class.
    pub agreement: f64,
}

/// A fidelity that is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// A mean KL divergence of at most this.
    Kl(f64),
    /// A share of at least this.
    Agreement(f64),
}

/// Mean of a value.
pub fn mean(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(value).sum::<f64>() / samples.len() as f64
}

/// The value below which this share of the samples lies.
pub fn percentile(samples: &[Sample], share: f64, value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let at = (share * (values.len() as f64 - 1.0)).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// Draws photos with replacement, the same draws every time.
pub struct Bootstrap {
    draws: Vec<Vec<usize>>,
}

impl Bootstrap {
    /// `rounds` draws from as many photos as there are.
    pub fn new(photos: usize, rounds: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            // xorshift64 (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize % photos.max(1)
        };
        let draws = (0..rounds)
            .map(|_| (0..photos).map(|_| next()).collect())
            .collect();
        Self { draws }
    }

    /// The middle 95 % of what `value` gives for the draws; none if it gives nothing for most.
    pub fn interval(&self, value: impl Fn(&[usize]) -> Option<f64>) -> Option<[f64; 2]> {
        let mut values: Vec<f64> = self.draws.iter().filter_map(|draw| value(draw)).collect();
        if values.is_empty() || values.len() * 2 < self.draws.len() {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
        Some([at(0.025), at(0.975)])
    }
}

/// Sums of a codec at one quality, photo by photo.
pub struct Sums(Vec<[f64; 4]>);

impl Sums {
    /// Sums of samples of photos with indices below `photos`.
    pub fn new(samples: &[Sample], photos: usize) -> Self {
        let mut sums = vec![[0.0; 4]; photos];
        for sample in samples {
            let sum = &mut sums[sample.photo];
            for (sum, value) in sum
                .iter_mut()
                .zip([1.0, sample.bytes, sample.kl, sample.agreement])
            {
                *sum += value;
            }
        }
        Self(sums)
    }

    /// The point that a draw of photos gives; none if no crop is of them.
    pub fn point(&self, draw: &[usize]) -> Option<Point> {
        let mut total = [0.0; 4];
        for &photo in draw {
            for (total, value) in total.iter_mut().zip(self.0[photo]) {
                *total += value;
            }
        }
        let [count, bytes, kl, agreement] = total;
        (count > 0.0).then(|| Point {
            bytes: bytes / count,
            kl: kl / count,
            agreement: agreement / count,
        })
    }
}

/// Bytes at which a curve reaches a target: between two of its points, never beyond them.
pub fn bytes_at(curve: &[Point], target: Target) -> Option<f64> {
    let mut curve = curve.to_vec();
    curve.sort_by(|a, b| a.bytes.total_cmp(&b.bytes));
    // How far a point is from the target; the target is reached from 0 on.
    let reach = |point: &Point| match target {
        Target::Kl(kl) => (kl / point.kl.max(1e-9)).ln(),
        Target::Agreement(share) => point.agreement - share,
    };
    curve.windows(2).find_map(|pair| {
        let (before, after) = (reach(&pair[0]), reach(&pair[1]));
        let crosses = before <= 0.0 && after >= 0.0 && after > before;
        crosses.then(|| {
            let (from, to) = (pair[0].bytes.ln(), pair[1].bytes.ln());
            (from + (to - from) * -before / (after - before)).exp()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(bytes: f64, kl: f64, agreement: f64) -> Point {
        Point {
            bytes,
            kl,
            agreement,
        }
    }

    #[test]
    fn between_two_points_and_never_beyond() {
        let curve = [
            point(4000.0, 0.05, 0.9),
            point(1000.0, 0.2, 0.7),
            point(2000.0, 0.1, 0.8),
        ];
        let close = |target, bytes: f64| {
            let got = bytes_at(&curve, target).unwrap();
            assert!((got - bytes).abs() < 1e-6 * bytes, "{got} for {bytes}");
        };
        close(Target::Kl(0.1), 2000.0);
        close(Target::Kl(0.2 / 2_f64.sqrt()), 1000.0 * 2_f64.sqrt());
        close(Target::Agreement(0.85), 2000.0 * 2_f64.sqrt());
        assert_eq!(bytes_at(&curve, Target::Kl(0.04)), None);
        assert_eq!(bytes_at(&curve, Target::Kl(0.3)), None);
        assert_eq!(bytes_at(&curve[..1], Target::Kl(0.05)), None);
    }

    #[test]
    fn an_interval_holds_the_mean_and_narrows_with_more_photos() {
        let width = |photos: usize| {
            let samples: Vec<Sample> = (0..photos)
                .map(|photo| Sample {
                    photo,
                    bytes: f64::from(photo as u32 % 10),
                    kl: 0.0,
                    agreement: 1.0,
                    top5: 1.0,
                    psnr: 30.0,
                    encode_ms: 1.0,
                    decode_ms: 1.0,
                })
                .collect();
            let sums = Sums::new(&samples, photos);
            let bootstrap = Bootstrap::new(photos, 300);
            let [low, high] = bootstrap
                .interval(|draw| sums.point(draw).map(|point| point.bytes))
                .unwrap();
            let mean = mean(&samples, |sample| sample.bytes);
            assert!(low < mean && mean < high, "{low} {mean} {high}");
            assert!((percentile(&samples, 0.95, |sample| sample.bytes) - 9.0).abs() < 0.5);
            high - low
        };
        assert!(width(400) < 0.7 * width(50));
    }
}
