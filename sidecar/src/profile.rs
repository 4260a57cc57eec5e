//! Measuring parts of the work on this machine: `proxy-device profile` and `proxy-edge profile`.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sidecod_wire::profile::{Part, Point, Profile, VERSION};

/// Sides of the square pictures that are measured.
const SIDES: [u32; 9] = [64, 112, 160, 224, 320, 448, 640, 896, 1280];
/// Runs of each size, unless they take too long.
const RUNS: usize = 9;
/// Runs of each size, however long they take.
const FEWEST_RUNS: usize = 3;
/// The middle half of the runs may lie so far apart, as a share of the median.
const STEADY: f64 = 0.15;
/// Batches of runs until one is steady.
const BATCHES: usize = 3;
/// All parts together take at most about so long.
const BUDGET: Duration = Duration::from_secs(90);

/// Measures parts one after the other, and shows how far it is.
pub struct Profiler {
    bar: ProgressBar,
    sides: Vec<u32>,
    /// For one batch of runs.
    time: Duration,
    parts: Vec<Part>,
    sizes: usize,
    disturbed: usize,
}

impl Profiler {
    /// A profiler for so many parts, and pictures of at most this side.
    #[must_use]
    pub fn new(parts: usize, max_side: u32) -> Self {
        let sides: Vec<u32> = SIDES.into_iter().filter(|side| *side <= max_side).collect();
        let steps = (parts * sides.len()).max(1);
        let bar = ProgressBar::new(steps as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)") {
            bar.set_style(style);
        }
        // Large sizes take most of the time, and a disturbed batch is run again.
        let time = BUDGET / (steps as u32) / 2;
        Self {
            bar,
            sides,
            time,
            parts: Vec::new(),
            sizes: 0,
            disturbed: 0,
        }
    }

    /// Measures a part. `prepare` makes, for the side of a square picture, what does its whole work
    /// once; none for a size that is not taken here.
    ///
    /// # Errors
    /// Those of the work.
    pub fn part<R, E>(
        &mut self,
        name: &str,
        bundle: Option<String>,
        mut prepare: impl FnMut(u32) -> Result<Option<R>, E>,
    ) -> Result<(), E>
    where
        R: FnMut() -> Result<(), E>,
    {
        let mut points = Vec::new();
        for side in self.sides.clone() {
            self.bar.set_message(format!("{name} {side}x{side}"));
            if let Some(run) = prepare(side)? {
                let (seconds, spread) = self.measure(run)?;
                self.sizes += 1;
                self.disturbed += usize::from(spread > STEADY);
                points.push(Point {
                    pixels: u64::from(side) * u64::from(side),
                    seconds,
                    spread,
                });
            }
            self.bar.inc(1);
        }
        if !points.is_empty() {
            self.parts.push(Part::new(name.to_owned(), bundle, points));
        }
        Ok(())
    }

    /// Median and spread of the steadiest of a few batches, after a run that warms it.
    fn measure<E>(&self, mut run: impl FnMut() -> Result<(), E>) -> Result<(f64, f64), E> {
        run()?;
        let mut best = (f64::INFINITY, f64::INFINITY);
        for _ in 0..BATCHES {
            let mut times = Vec::with_capacity(RUNS);
            let begin = Instant::now();
            while times.len() < FEWEST_RUNS || times.len() < RUNS && begin.elapsed() < self.time {
                let start = Instant::now();
                run()?;
                times.push(start.elapsed().as_secs_f64());
            }
            let batch = middle(&mut times);
            if batch.1 < best.1 {
                best = batch;
            }
            if best.1 <= STEADY {
                break;
            }
        }
        Ok(best)
    }

    /// The profile.
    #[must_use]
    pub fn finish(self) -> (Profile, Summary) {
        self.bar.finish_and_clear();
        let profile = Profile {
            version: VERSION,
            machine: machine(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            date: today(),
            parts: self.parts,
        };
        let summary = Summary {
            sizes: self.sizes,
            disturbed: self.disturbed,
        };
        (profile, summary)
    }
}

/// How steady the machine was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Sizes measured, of all parts.
    pub sizes: usize,
    /// Those whose runs lay far apart, however often they were run.
    pub disturbed: usize,
}

/// Writes a profile to a file and prints what is in it.
///
/// # Errors
/// What the system says of the file.
pub fn write(profile: &Profile, summary: Summary, file: &Path) -> std::io::Result<()> {
    let json = serde_json::to_string_pretty(profile)?;
    std::fs::write(file, json + "\n")?;
    println!(
        "{}, {} cores, {}",
        profile.machine, profile.cores, profile.date
    );
    for part in &profile.parts {
        println!("{}", part.name);
        for point in &part.points {
            let side = (point.pixels as f64).sqrt();
            let (ms, spread) = (point.seconds * 1e3, point.spread * 100.0);
            println!("  {side:>5.0}x{side:<5.0} {ms:>9.2} ms   middle half within {spread:.0} %");
        }
        if let Some(error) = part.left_out_error {
            let error = error * 100.0;
            println!("  sizes left out of the fit: off by {error:.0} % (median)");
        }
    }
    let Summary { sizes, disturbed } = summary;
    if disturbed > 0 {
        println!(
            "{disturbed} of {sizes} sizes were disturbed: something else keeps this machine busy"
        );
    }
    println!("written to {}", file.display());
    Ok(())
}

/// The median, and the middle half over it.
fn middle(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[(times.len() - 1) * share / 4];
    (at(2), (at(3) - at(1)) / at(2).max(f64::MIN_POSITIVE))
}

/// The processor's name.
#[must_use]
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = info.lines();
    let name = lines.find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |(_, name)| name.to_owned(),
    )
}

/// The day in UTC, `YYYY-MM-DD`, by the civil calendar.
#[must_use]
pub fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = since.map_or(0, |since| since.as_secs() / 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of so many days after the first of January 1970.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn days() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_781), (2026, 11, 24));
        assert_eq!(civil(20_818), (2026, 12, 31));
    }

    #[test]
    fn the_middle_of_runs() {
        let (median, spread) = middle(&mut [5.0, 1.0, 3.0, 2.0, 4.0]);
        assert!((median - 3.0).abs() < 1e-9);
        assert!((spread - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn every_size_that_is_taken_is_measured_and_warmed_first() {
        let mut profiler = Profiler::new(1, 320);
        let runs = std::cell::Cell::new(0);
        let done = profiler.part("p", None, |side| {
            let run = || {
                runs.set(runs.get() + 1);
                Ok::<(), Infallible>(())
            };
            Ok((side <= 160).then_some(run))
        });
        done.unwrap();
        let (profile, summary) = profiler.finish();
        assert_eq!(profile.parts[0].points.len(), 3);
        assert_eq!(summary.sizes, 3);
        assert!(runs.get() >= 3 * (1 + FEWEST_RUNS));
    }
}
