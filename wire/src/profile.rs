//! A profile: what parts of the work take on one machine, measured whole over a range of sizes.
//!
//! Time is not linear in work: caches, threads and strips make it piecewise so. A part is therefore
//! the list of what was measured, with straight lines between (DeepCOD, SenSys 2020, profiles its
//! layers with the piecewise `FastDeepIoT` for the same reason).

use serde::{Deserialize, Serialize};

/// Version of the format.
pub const VERSION: u32 = 1;
/// Name of the part in which an edge turns a frame back into a body: codes, decoder, file.
pub const RESTORE: &str = "restore";
/// Points of one part; a profile may come over the link.
const MOST_POINTS: usize = 64;
const MOST_PARTS: usize = 256;

/// What was measured on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// [`VERSION`].
    pub version: u32,
    /// Processor, or graphics processor.
    pub machine: String,
    /// Cores that the program may use.
    pub cores: usize,
    /// Day of the measurement, `YYYY-MM-DD`.
    pub date: String,
    /// The parts.
    pub parts: Vec<Part>,
}

/// One part of the work, over sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What is done: the name of an option, or [`RESTORE`].
    pub name: String,
    /// SHA-256 of the bundle that does it, in hexadecimal, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// What was measured, by ascending work; at least one.
    pub points: Vec<Point>,
    /// Median of the relative errors at sizes that were left out of the fit, one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out_error: Option<f64>,
}

/// A size and its time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Pixels of the picture.
    pub pixels: u64,
    /// Median of the runs, in seconds.
    pub seconds: f64,
    /// Middle half of the runs over their median: large where something else kept the machine busy.
    pub spread: f64,
}

/// Why a profile is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It is no JSON of this form.
    #[error("profile: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error("profile: version {0}, this program reads {VERSION}")]
    Version(u32),
    /// A value is out of its range.
    #[error("profile: part {part}: {fault}")]
    Part {
        /// The part.
        part: String,
        /// What is wrong.
        fault: &'static str,
    },
}

impl Profile {
    /// Reads and checks a profile.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn parse(json: &[u8]) -> Result<Self, ProfileError> {
        let profile: Self = serde_json::from_slice(json)?;
        if profile.version != VERSION {
            return Err(ProfileError::Version(profile.version));
        }
        if profile.parts.len() > MOST_PARTS {
            return Err(ProfileError::Part {
                part: MOST_PARTS.to_string(),
                fault: "more parts than a profile may have",
            });
        }
        for part in &profile.parts {
            part.check().map_err(|fault| ProfileError::Part {
                part: part.name.clone(),
                fault,
            })?;
        }
        Ok(profile)
    }

    /// The part of this name, done by this bundle where one does it.
    #[must_use]
    pub fn part(&self, name: &str, bundle: Option<&str>) -> Option<&Part> {
        let mut parts = self.parts.iter();
        parts.find(|part| part.name == name && part.bundle.as_deref() == bundle)
    }
}

impl Part {
    /// A part out of what was measured. More work never takes less time: where a point says so, it
    /// and its neighbour get their mean.
    #[must_use]
    pub fn new(name: String, bundle: Option<String>, mut points: Vec<Point>) -> Self {
        points.sort_by_key(|point| point.pixels);
        points.dedup_by_key(|point| point.pixels);
        let left_out_error = left_out(&points);
        let times: Vec<f64> = points.iter().map(|point| point.seconds).collect();
        for (point, seconds) in points.iter_mut().zip(ascending(&times)) {
            point.seconds = seconds;
        }
        Self {
            name,
            bundle,
            points,
            left_out_error,
        }
    }

    /// Seconds for a picture of so many pixels. Beyond the largest size the last line goes on.
    #[must_use]
    pub fn seconds(&self, pixels: f64) -> f64 {
        predict(&self.points, pixels)
    }

    fn check(&self) -> Result<(), &'static str> {
        let good = |point: &Point| point.seconds.is_finite() && point.seconds >= 0.0;
        if self.points.is_empty() || self.points.len() > MOST_POINTS {
            return Err("must have 1 to 64 points");
        }
        if !self.points.iter().all(good) {
            return Err("a time is not one");
        }
        if !self.points.is_sorted_by(|a, b| a.pixels < b.pixels) {
            return Err("its points do not ascend");
        }
        Ok(())
    }
}

fn predict(points: &[Point], pixels: f64) -> f64 {
    let place = |point: &Point| (point.pixels as f64, point.seconds);
    match points {
        [] => 0.0,
        [only] => only.seconds,
        _ => {
            let after = points.partition_point(|point| (point.pixels as f64) < pixels);
            let after = after.clamp(1, points.len() - 1);
            let ((x0, y0), (x1, y1)) = (place(&points[after - 1]), place(&points[after]));
            (y0 + (y1 - y0) / (x1 - x0) * (pixels - x0)).max(0.0)
        }
    }
}

/// Median of the relative errors at each inner size, predicted from all others.
fn left_out(points: &[Point]) -> Option<f64> {
    let inner = 1..points.len().saturating_sub(1);
    let mut errors: Vec<f64> = inner
        .map(|index| {
            let mut others = points.to_vec();
            let left = others.remove(index);
            let predicted = predict(&others, left.pixels as f64);
            (predicted - left.seconds).abs() / left.seconds.max(f64::MIN_POSITIVE)
        })
        .collect();
    errors.sort_by(f64::total_cmp);
    errors.get(errors.len() / 2).copied()
}

/// The nearest ascending values (pool adjacent violators).
fn ascending(values: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for &value in values {
        let (mut mean, mut count) = (value, 1);
        while let Some(&(before, many)) = pools.last().filter(|(before, _)| *before > mean) {
            mean = (before * many as f64 + mean * count as f64) / (many + count) as f64;
            count += many;
            pools.pop();
        }
        pools.push((mean, count));
    }
    let each = pools.into_iter();
    each.flat_map(|(mean, count)| std::iter::repeat_n(mean, count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(points: &[(u64, f64)]) -> Part {
        let points = points.iter().map(|&(pixels, seconds)| Point {
            pixels,
            seconds,
            spread: 0.0,
        });
        Part::new("p".into(), None, points.collect())
    }

    #[test]
    fn lines_between_points_and_beyond() {
        let part = part(&[(100, 1.0), (200, 2.0), (400, 6.0)]);
        for (pixels, seconds) in [
            (50.0, 0.5),
            (100.0, 1.0),
            (150.0, 1.5),
            (300.0, 4.0),
            (500.0, 8.0),
        ] {
            assert!((part.seconds(pixels) - seconds).abs() < 1e-9, "{pixels}");
        }
        assert!(part.seconds(0.0) >= 0.0);
    }

    #[test]
    fn the_error_at_sizes_left_out_is_told() {
        let straight = part(&[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]);
        assert!(straight.left_out_error.unwrap() < 1e-9);
        let bent = part(&[(1, 1.0), (2, 2.0), (3, 9.0)]);
        assert!((bent.left_out_error.unwrap() - 1.5).abs() < 1e-9);
        assert_eq!(part(&[(1, 1.0)]).left_out_error, None);
    }

    #[test]
    fn more_work_never_takes_less_time() {
        let times: Vec<f64> = part(&[(1, 1.0), (2, 5.0), (3, 3.0), (4, 6.0)])
            .points
            .iter()
            .map(|point| point.seconds)
            .collect();
        assert_eq!(times, [1.0, 4.0, 4.0, 6.0]);
    }

    #[test]
    fn a_profile_comes_back_and_faults_are_named() {
        let profile = Profile {
            version: VERSION,
            machine: "m".into(),
            cores: 2,
            date: "2026-11-24".into(),
            parts: vec![part(&[(1, 1.0), (2, 2.0)])],
        };
        let json = serde_json::to_string(&profile).unwrap();
        let back = Profile::parse(json.as_bytes()).unwrap();
        assert_eq!(back, profile);
        assert!(back.part("p", None).is_some() && back.part("p", Some("d")).is_none());
        for (from, to, says) in [
            (
                "\"version\":1",
                "\"version\":9",
                "version 9, this program reads 1",
            ),
            (
                "\"pixels\":1,",
                "\"pixels\":2,",
                "part p: its points do not ascend",
            ),
            (
                "\"seconds\":1.0",
                "\"seconds\":-1.0",
                "part p: a time is not one",
            ),
            ("\"parts\"", "\"pats\"", "missing field `parts`"),
        ] {
            let error = Profile::parse(json.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
