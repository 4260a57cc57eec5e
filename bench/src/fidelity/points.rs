//! Table 1 of DeepCOD (SenSys 2020) for points of our own: what crosses, how long that takes at a
//! rate, what is left of the answer, and what both ends work.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use indicatif::ProgressBar;
use serde::Serialize;
use sidecod_device::encode::{Head, Single};
use sidecod_edge::bundles;
use sidecod_edge::config::{Device, Precision};
use sidecod_edge::decode::Content;
use sidecod_edge::decode::torch::Engine;
use sidecod_wire::bundle::MODEL;
use sidecod_wire::interface::Whole;
use sidecod_wire::media::{Color, MediaType, Picture};
use sidecod_wire::slot::{Form, Text};

use super::ours::{self, Decoding, REPEAT};
use super::teacher::{Answer, Teacher};
use super::{Codec, crops};
use crate::photos;

/// What is to be measured.
pub struct Options {
    /// Folder of photos.
    pub data: PathBuf,
    /// Split of its index.csv.
    pub split: Option<String>,
    /// Folder of the built points, with the whole model in `local`.
    pub points: PathBuf,
    /// Bundles for the input.
    pub codecs: Vec<PathBuf>,
    /// At most so many crops, evenly spread.
    pub max_crops: Option<usize>,
    /// Megabits a second of the link.
    pub mbit: f64,
}

/// One option.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Where the model is cut: `input`, a point, or `local`.
    pub point: String,
    /// The quality.
    pub quality: String,
    /// Shape of what is coded.
    pub shape: String,
    /// Its bytes as numbers of four bytes.
    pub plain: usize,
    /// Mean bytes of the frame.
    pub bytes: f64,
    /// Milliseconds that they take at the rate.
    pub network_ms: f64,
    /// Share of crops with the same first class.
    pub agreement: f64,
    /// Share of crops whose first class is among the first five.
    pub top5: f64,
    /// Mean KL divergence, nats.
    pub kl: f64,
    /// Mean milliseconds of the head on the device, one core.
    pub head_ms: f64,
    /// Mean milliseconds of encoder and entropy coder.
    pub code_ms: f64,
    /// Mean milliseconds at the edge, one core: decoder, and tail.
    pub edge_ms: f64,
}

/// What one crop gave.
struct Sample {
    bytes: usize,
    answer: Answer,
    head: Duration,
    code: Duration,
    edge: Duration,
}

/// Measures every point at every quality, and the input, on every crop.
///
/// # Errors
/// If photos, models or bundles cannot be used.
pub fn measure(options: &Options) -> Result<Vec<Row>> {
    let local = options.points.join("local");
    let manifest = local.join("manifest.json");
    let whole = std::fs::read(&manifest)
        .with_context(|| format!("cannot read {}: make points", manifest.display()))?;
    let input = Whole::parse(&whole)?.input;
    let teacher = Teacher::load(&local.join(MODEL), input.mean[0], input.std[0])?;
    let paths = photos::list(&options.data, options.split.as_deref())?;
    // As large as what the model's input is cut out of.
    let (crops, _) = crops::cut(&paths, input.short_side, options.max_crops)?;
    let margin = (input.short_side - input.side) / 2;
    let middle = |crop: &RgbImage| {
        image::imageops::crop_imm(crop, margin, margin, input.side, input.side).to_image()
    };
    let middles: Vec<RgbImage> = crops.iter().map(|crop| middle(&crop.pixels)).collect();
    let wanted = teacher.answers(&middles.iter().collect::<Vec<_>>())?;
    let bar = ProgressBar::new(0);
    let engine = Engine::start(Device::Cpu, 1, 1)?;
    let mut rows = Vec::new();
    for mut codec in ours::open(&options.codecs, &[], Precision::Float32)? {
        let mut samples = Vec::with_capacity(crops.len());
        bar.inc_length(crops.len() as u64);
        for picture in &middles {
            let coded = codec.code(picture)?;
            let [answer] = <[Answer; 1]>::try_from(teacher.answers(&[&coded.pixels])?)
                .map_err(|_| anyhow::anyhow!("one answer for one picture"))?;
            samples.push(Sample {
                bytes: coded.bytes,
                answer,
                head: Duration::ZERO,
                code: coded.encode,
                edge: coded.decode,
            });
            bar.inc(1);
        }
        let side = input.side as usize;
        let row = Row::new("input", codec.quality(), [3, side, side], &samples, &wanted);
        rows.push(row.at(options.mbit));
    }
    for folder in folders(&options.points)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let head = Head::open(&folder)?;
        let stored = bundles::read_all(std::slice::from_ref(&folder))?;
        let stored = stored.into_iter().next().context("one bundle")?;
        let edge = Decoding::open(engine, stored)?;
        let manifest = edge.manifest();
        let point = manifest.point.as_ref().context("a point")?;
        for (index, quality) in manifest.qualities.iter().enumerate() {
            bar.inc_length(crops.len() as u64);
            let mut samples = Vec::with_capacity(crops.len());
            for crop in &crops {
                samples.push(sample(&head, &edge, index, &crop.pixels)?);
                bar.inc(1);
            }
            let row = Row::new(&name, &quality.name, point.feature, &samples, &wanted);
            rows.push(row.at(options.mbit));
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// The points of a folder, those that are cut early first.
///
/// # Errors
/// If there are none.
pub fn folders(points: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(points)? {
        let folder = entry?.path();
        if folder.join("head.onnx").is_file() {
            folders.push((folder.join("head.onnx").metadata()?.len(), folder));
        }
    }
    ensure!(
        !folders.is_empty(),
        "{}: no points: make points",
        points.display()
    );
    folders.sort();
    Ok(folders.into_iter().map(|(_, folder)| folder).collect())
}

fn sample(head: &Head, edge: &Decoding, quality: usize, crop: &RgbImage) -> Result<Sample> {
    let input = Single {
        form: Form::File {
            media: MediaType::Png,
            text: Text::Raw,
        },
        picture: Picture {
            width: crop.width(),
            height: crop.height(),
            color: Color::Rgb,
            orientation: 1,
            rgb: crop.as_raw().clone(),
        },
    };
    let mut times = [Duration::MAX; 3];
    let mut result = None;
    for _ in 0..REPEAT {
        let coded = head.code(&input, quality)?;
        let took = |names: &[&str]| -> Duration {
            let steps = coded.steps.iter().filter(|(step, _)| names.contains(step));
            steps.map(|(_, took)| *took).sum()
        };
        times[0] = times[0].min(took(&["head"]));
        times[1] = times[1].min(took(&["encode", "entropy"]));
        let begin = Instant::now();
        let content = edge.content(coded.crossing.bytes())?;
        times[2] = times[2].min(begin.elapsed());
        result = Some((coded.crossing.bytes().len(), content));
    }
    let (bytes, content) = result.context("coded at least once")?;
    let Content::Values(outputs) = content else {
        anyhow::bail!("the bundle is none for features");
    };
    let outputs: Vec<f64> = outputs.into_iter().map(f64::from).collect();
    let [head, code, edge] = times;
    Ok(Sample {
        bytes,
        answer: Answer::new(&outputs),
        head,
        code,
        edge,
    })
}

impl Row {
    fn new(
        point: &str,
        quality: &str,
        shape: [usize; 3],
        samples: &[Sample],
        wanted: &[Answer],
    ) -> Self {
        let mean = |value: &dyn Fn(&Sample, &Answer) -> f64| {
            let pairs = samples.iter().zip(wanted);
            pairs.map(|(s, w)| value(s, w)).sum::<f64>() / samples.len() as f64
        };
        let ms = |of: fn(&Sample) -> Duration| mean(&|s, _| of(s).as_secs_f64() * 1e3);
        Self {
            point: point.to_owned(),
            quality: quality.to_owned(),
            shape: format!("{}x{}x{}", shape[0], shape[1], shape[2]),
            plain: shape.iter().product::<usize>() * 4,
            bytes: mean(&|s, _| s.bytes as f64),
            network_ms: 0.0,
            agreement: mean(&|s, w| f64::from(s.answer.best() == w.best())),
            top5: mean(&|s, w| f64::from(s.answer.is_in_top(w.best(), 5))),
            kl: mean(&|s, w| w.divergence(&s.answer)),
            head_ms: ms(|s| s.head),
            code_ms: ms(|s| s.code),
            edge_ms: ms(|s| s.edge),
        }
    }

    fn at(mut self, mbit: f64) -> Self {
        self.network_ms = self.bytes * 8.0 / (mbit * 1e3);
        self
    }
}

/// Prints the table.
pub fn print(rows: &[Row], mbit: f64) {
    println!(
        "| point | shape | as numbers | quality | bytes | ms at {mbit} Mbit/s | same first class | in the first five | KL | head ms | code ms | edge ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        println!(
            "| {} | {} | {} | {} | {:.0} | {:.1} | {:.3} | {:.3} | {:.3} | {:.1} | {:.1} | {:.1} |",
            row.point,
            row.shape,
            row.plain,
            row.quality,
            row.bytes,
            row.network_ms,
            row.agreement,
            row.top5,
            row.kl,
            row.head_ms,
            row.code_ms,
            row.edge_ms
        );
    }
}
