//! The figures as a table, CSV and JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Codec;
use super::detect::{Detection, Scene};
use super::stats::{Bootstrap, Point, Sample, Sums, Target, bytes_at, mean, percentile};

const ROUNDS: usize = 300;
const TARGETS: [(&str, &str, Target); 4] = [
    ("kl_0.10", "KL 0.10", Target::Kl(0.10)),
    ("kl_0.05", "KL 0.05", Target::Kl(0.05)),
    ("agreement_0.85", "agreement 0.85", Target::Agreement(0.85)),
    ("agreement_0.90", "agreement 0.90", Target::Agreement(0.90)),
];

/// All figures.
#[derive(Debug, Serialize)]
pub struct Report {
    /// A row for each codec and quality.
    pub codecs: Vec<Row>,
    /// For each target: bytes by codec, null where its curve does not get there.
    pub bytes_at: BTreeMap<&'static str, BTreeMap<String, Option<f64>>>,
    /// The middle 95 % of the same, by bootstrap over photos.
    pub bytes_at_ci: BTreeMap<&'static str, BTreeMap<String, Option<[f64; 2]>>>,
    /// For each target: bytes of each bundle over those of the best peer, and the middle 95 %.
    pub ratio: BTreeMap<&'static str, BTreeMap<String, Option<Against>>>,
    /// Names of the codecs that are bundles.
    pub bundles: Vec<String>,
    /// What the detector saw in the uncompressed photos; null without one.
    pub scene: Option<Scene>,
    /// Crops.
    pub crops: usize,
    /// Photos that they are of.
    pub photos: usize,
    /// Processor and cores.
    pub machine: String,
    /// Day of the run.
    pub date: String,
}

/// One codec against the best of the others.
#[derive(Debug, Serialize)]
pub struct Against {
    /// The peer with the fewest bytes.
    pub peer: String,
    /// Bytes over the peer's bytes.
    pub ratio: f64,
    /// The middle 95 % of the ratio to the best peer of each draw.
    pub ci: Option<[f64; 2]>,
}

/// One codec at one quality.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The codec.
    pub name: String,
    /// Its quality.
    pub quality: String,
    /// Mean bytes.
    pub bytes_mean: f64,
    /// 95th percentile of bytes.
    pub bytes_p95: f64,
    /// Share of crops with the same first class.
    pub agreement: f64,
    /// Share of crops whose uncompressed first class is among the first five.
    pub top5: f64,
    /// Mean KL divergence, nats.
    pub kl: f64,
    /// Its middle 95 %, by bootstrap over photos.
    pub kl_ci: Option<[f64; 2]>,
    /// The same for the agreement.
    pub agreement_ci: Option<[f64; 2]>,
    /// Mean peak signal-to-noise ratio, dB.
    pub psnr: f64,
    /// Mean milliseconds to encode, on one core.
    pub encode_ms: f64,
    /// Mean milliseconds to decode, on one core.
    pub decode_ms: f64,
    /// The detector's boxes on whole photos; null without a detector.
    pub detection: Option<Detection>,
}

impl Report {
    pub(super) fn new(
        codecs: &[Box<dyn Codec>],
        samples: &[Vec<Sample>],
        bundles: Vec<String>,
        crops: usize,
        photos: usize,
    ) -> Self {
        let indices = samples.iter().flatten().map(|sample| sample.photo);
        let highest = indices.max().map_or(0, |photo| photo + 1);
        let bootstrap = Bootstrap::new(highest, ROUNDS);
        let mut rows = Vec::new();
        let mut curves: BTreeMap<String, Vec<Sums>> = BTreeMap::new();
        for (codec, samples) in codecs.iter().zip(samples) {
            let sums = Sums::new(samples, highest);
            let interval =
                |value: fn(Point) -> f64| bootstrap.interval(|draw| sums.point(draw).map(value));
            rows.push(Row {
                name: codec.name().to_owned(),
                quality: codec.quality().to_owned(),
                bytes_mean: mean(samples, |sample| sample.bytes),
                bytes_p95: percentile(samples, 0.95, |sample| sample.bytes),
                agreement: mean(samples, |sample| sample.agreement),
                top5: mean(samples, |sample| sample.top5),
                kl: mean(samples, |sample| sample.kl),
                kl_ci: interval(|point| point.kl),
                agreement_ci: interval(|point| point.agreement),
                psnr: mean(samples, |sample| sample.psnr),
                encode_ms: mean(samples, |sample| sample.encode_ms),
                decode_ms: mean(samples, |sample| sample.decode_ms),
                detection: None,
            });
            curves
                .entry(codec.name().to_owned())
                .or_default()
                .push(sums);
        }
        let every: Vec<usize> = (0..highest).collect();
        let reach = |name: &str, draw: &[usize], target| {
            let points = curves[name].iter().map(|sums| sums.point(draw));
            bytes_at(&points.collect::<Option<Vec<Point>>>()?, target)
        };
        let mut bundles = bundles;
        bundles.dedup();
        let peers: Vec<&String> = curves
            .keys()
            .filter(|name| !bundles.contains(name))
            .collect();
        let best = |draw: &[usize], target| {
            let reached = peers
                .iter()
                .filter_map(|name| Some((*name, reach(name, draw, target)?)));
            reached.min_by(|a, b| a.1.total_cmp(&b.1))
        };
        let (mut bytes, mut intervals, mut ratios) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (key, _, target) in TARGETS {
            let names = || curves.keys().cloned();
            bytes.insert(
                key,
                names()
                    .map(|n| {
                        let b = reach(&n, &every, target);
                        (n, b)
                    })
                    .collect(),
            );
            let interval = |n: String| {
                let ci = bootstrap.interval(|draw| reach(&n, draw, target));
                (n, ci)
            };
            intervals.insert(key, names().map(interval).collect());
            let ratio = |name: &String| {
                let (peer, least) = best(&every, target)?;
                Some(Against {
                    peer: peer.clone(),
                    ratio: reach(name, &every, target)? / least,
                    ci: bootstrap
                        .interval(|draw| Some(reach(name, draw, target)? / best(draw, target)?.1)),
                })
            };
            ratios.insert(
                key,
                bundles
                    .iter()
                    .map(|name| (name.clone(), ratio(name)))
                    .collect(),
            );
        }
        Self {
            codecs: rows,
            bytes_at: bytes,
            bytes_at_ci: intervals,
            ratio: ratios,
            bundles,
            scene: None,
            crops,
            photos,
            machine: machine(),
            date: today(),
        }
    }

    /// Adds what the detector made of each codec's photos.
    pub(super) fn detected(&mut self, all: Vec<Detection>, scene: Scene) {
        for (row, detection) in self.codecs.iter_mut().zip(all) {
            row.detection = Some(detection);
        }
        self.scene = Some(scene);
    }

    /// Writes fidelity.json and fidelity.csv.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let mut csv = String::from(
            "codec,quality,bytes_mean,bytes_p95,agreement,top5,kl,psnr,encode_ms,decode_ms,\
             photo_bytes_mean,map_50,map_50_95,photo_encode_ms\n",
        );
        for row in &self.codecs {
            // Writing to a string does not fail.
            let _ = write!(
                csv,
                "{},{},{:.1},{:.0},{:.4},{:.4},{:.5},{:.3},{:.3},{:.3}",
                row.name,
                row.quality,
                row.bytes_mean,
                row.bytes_p95,
                row.agreement,
                row.top5,
                row.kl,
                row.psnr,
                row.encode_ms,
                row.decode_ms
            );
            let _ = match &row.detection {
                Some(d) => writeln!(
                    csv,
                    ",{:.1},{:.4},{:.4},{:.3}",
                    d.bytes_mean, d.map_50, d.map_50_95, d.encode_ms
                ),
                None => writeln!(csv, ",,,,"),
            };
        }
        for (name, text) in [
            ("fidelity.csv", csv),
            ("fidelity.json", serde_json::to_string_pretty(self)?),
        ] {
            let file = folder.join(name);
            std::fs::write(&file, text)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

/// Prints the table and where each codec reaches each target.
pub fn print(report: &Report) {
    println!(
        "{} crops of {} photos, {}, {}\n",
        report.crops, report.photos, report.machine, report.date
    );
    if let Some(scene) = &report.scene {
        println!(
            "detector: {} whole photos, {} boxes of {} classes in them uncompressed\n",
            scene.photos, scene.boxes, scene.classes
        );
    }
    print!(
        "codec        quality    bytes     p95  agreement   top5      KL   PSNR  encode  decode"
    );
    let detected = "   photo bytes  mAP 0.5  mAP 0.5:0.95  encode";
    println!("{}", report.scene.as_ref().map_or("", |_| detected));
    for row in &report.codecs {
        print!(
            "{:<12} {:<7} {:>8.0} {:>7.0} {:>10.3} {:>6.3} {:>7.4} {:>6.2} {:>7.2} {:>7.2}",
            row.name,
            row.quality,
            row.bytes_mean,
            row.bytes_p95,
            row.agreement,
            row.top5,
            row.kl,
            row.psnr,
            row.encode_ms,
            row.decode_ms
        );
        match &row.detection {
            Some(d) => println!(
                "   {:>11.0} {:>8.3} {:>13.3} {:>7.2}",
                d.bytes_mean, d.map_50, d.map_50_95, d.encode_ms
            ),
            None => println!(),
        }
    }
    for (key, title, _) in TARGETS {
        println!("\nbytes at {title}, and the middle 95 %");
        for (name, bytes) in &report.bytes_at[key] {
            let Some(bytes) = bytes else {
                println!("  {name:<12}       -");
                continue;
            };
            let ci = report.bytes_at_ci[key][name].map_or(String::new(), |[low, high]| {
                format!("  {low:.0} to {high:.0}")
            });
            println!("  {name:<12} {bytes:>7.0}{ci}");
        }
        for (name, ratio) in &report.ratio[key] {
            if let Some(Against { peer, ratio, ci }) = ratio {
                let ci = ci.map_or(String::new(), |[low, high]| {
                    format!(" ({low:.2} to {high:.2})")
                });
                println!("  {name} takes {ratio:.2}{ci} of the bytes of the best peer, {peer}");
            }
        }
    }
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores")
}

/// The day, in UTC, by the civil calendar.
fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut days = since.map_or(0, |since| since.as_secs() / 86_400);
    let mut year = 1970;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let months = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}
