//! What codecs cost in bytes and in the answers of a model, ours and those that people use instead.

mod crops;
mod detect;
mod ours;
mod peers;
pub mod points;
mod report;
mod stats;
mod teacher;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use sidecod_edge::config::Precision;

pub(crate) use peers::script;
pub use report::{Report, print};

use crate::photos;
use crops::Crop;
use detect::NanoDet;
use stats::Sample;
use teacher::Teacher;

/// Crops that are coded before the teacher looks at them: times are taken with nothing else running.
const CHUNK: usize = 16;

/// What is to be measured.
pub struct Options {
    /// Folder of photos.
    pub data: PathBuf,
    /// Split of its index.csv.
    pub split: Option<String>,
    /// An ONNX classifier.
    pub teacher: PathBuf,
    /// What it takes is `(value - mean) / std`, values from 0 to 255.
    pub mean: f32,
    /// See `mean`.
    pub std: f32,
    /// Bundles; none means all in onnx/codecs.
    pub codecs: Vec<PathBuf>,
    /// Names of peers; none means all.
    pub peers: Vec<String>,
    /// At most so many crops, evenly spread.
    pub max_crops: Option<usize>,
    /// Bounds on the longer side that our codecs reduce to, beside none.
    pub max_sides: Vec<u32>,
    /// In what numbers our decoders compute.
    pub precision: Precision,
    /// A `NanoDet` whose boxes on whole photos are compared too.
    pub detector: Option<PathBuf>,
    /// At most so many photos for the detector, evenly spread.
    pub max_photos: Option<usize>,
    /// Folder for CSV, JSON and plots.
    pub out: Option<PathBuf>,
}

/// A picture after a codec.
struct Coded {
    bytes: usize,
    encode: Duration,
    decode: Duration,
    pixels: RgbImage,
}

/// A codec at one quality.
trait Codec {
    /// The codec's name.
    fn name(&self) -> &str;
    /// The quality's name.
    fn quality(&self) -> &str;
    /// Codes and decodes a picture.
    fn code(&mut self, picture: &RgbImage) -> Result<Coded>;
}

/// Measures every codec at every quality on every crop.
///
/// # Errors
/// If photos, teacher, bundles or the peers' Python cannot be used.
pub fn measure(options: &Options) -> Result<Report> {
    let teacher = Teacher::load(&options.teacher, options.mean, options.std)?;
    let detector = options.detector.as_deref().map(NanoDet::load).transpose()?;
    let paths = photos::list(&options.data, options.split.as_deref())?;
    let (crops, small) = crops::cut(&paths, teacher.side(), options.max_crops)?;
    if small > 0 {
        eprintln!("{small} photos are too small and left out");
    }
    let bundles = if options.codecs.is_empty() {
        ours::shipped()?
    } else {
        options.codecs.clone()
    };
    let ours = ours::open(&bundles, &options.max_sides, options.precision)?;
    let names: Vec<String> = ours.iter().map(|codec| codec.name().to_owned()).collect();
    let mut codecs: Vec<Box<dyn Codec>> = ours
        .into_iter()
        .map(|codec| Box::new(codec) as Box<dyn Codec>)
        .collect();
    for peer in peers::all(&options.peers)? {
        codecs.push(Box::new(peer));
    }
    ensure!(
        !codecs.is_empty(),
        "nothing to measure: no bundle and no peer"
    );
    let bar = ProgressBar::new((crops.len() * codecs.len()) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} pictures, {eta} left, {msg}",
    )?);
    let samples = run(&mut codecs, &teacher, &crops, &bar)?;
    let mut report = Report::new(&codecs, &samples, names, crops.len(), paths.len() - small);
    if let Some(detector) = detector {
        bar.reset();
        let (all, scene) =
            detect::measure(&detector, &mut codecs, &paths, options.max_photos, &bar)?;
        report.detected(all, scene);
    }
    bar.finish_and_clear();
    if let Some(folder) = &options.out {
        report.write(folder)?;
        plot("plot.py", folder)?;
    }
    Ok(report)
}

fn run(
    codecs: &mut [Box<dyn Codec>],
    teacher: &Teacher,
    crops: &[Crop],
    bar: &ProgressBar,
) -> Result<Vec<Vec<Sample>>> {
    let mut samples: Vec<Vec<Sample>> = codecs.iter().map(|_| Vec::new()).collect();
    for chunk in crops.chunks(CHUNK) {
        let originals: Vec<&RgbImage> = chunk.iter().map(|crop| &crop.pixels).collect();
        let wanted = teacher.answers(&originals)?;
        for (codec, samples) in codecs.iter_mut().zip(&mut samples) {
            bar.set_message(format!("{} {}", codec.name(), codec.quality()));
            let coded: Vec<Coded> = originals
                .iter()
                .map(|picture| codec.code(picture))
                .collect::<Result<_>>()
                .with_context(|| format!("{} {}", codec.name(), codec.quality()))?;
            let decoded: Vec<&RgbImage> = coded.iter().map(|coded| &coded.pixels).collect();
            let answers = teacher.answers(&decoded)?;
            for (i, crop) in chunk.iter().enumerate() {
                let (coded, wanted, answer) = (&coded[i], &wanted[i], &answers[i]);
                samples.push(Sample {
                    photo: crop.photo,
                    bytes: coded.bytes as f64,
                    kl: wanted.divergence(answer),
                    agreement: f64::from(wanted.best() == answer.best()),
                    top5: f64::from(answer.is_in_top(wanted.best(), 5)),
                    psnr: psnr(&crop.pixels, &coded.pixels),
                    encode_ms: coded.encode.as_secs_f64() * 1e3,
                    decode_ms: coded.decode.as_secs_f64() * 1e3,
                });
            }
            bar.inc(chunk.len() as u64);
        }
    }
    Ok(samples)
}

/// What a model says of each picture, worked out on all cores.
fn parallel<T: Send>(
    pictures: &[&RgbImage],
    model: impl Fn(&RgbImage) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = pictures.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = pictures
            .chunks(share)
            .map(|part| scope.spawn(|| part.iter().map(|picture| model(picture)).collect()))
            .collect();
        let mut all = Vec::with_capacity(pictures.len());
        for part in parts {
            let answers: Result<Vec<T>> = part
                .join()
                .map_err(|_| anyhow::anyhow!("the model panicked"))?;
            all.extend(answers?);
        }
        Ok(all)
    })
}

/// Peak signal-to-noise ratio in dB, at most 100.
fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares: u64 = a
        .as_raw()
        .iter()
        .zip(b.as_raw())
        .map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2))
        .sum();
    let mean = squares as f64 / a.as_raw().len() as f64;
    (10.0 * (255.0 * 255.0 / mean.max(1e-6)).log10()).min(100.0)
}

/// Draws the report in a folder with a script of bench/python.
pub(crate) fn plot(script: &str, folder: &std::path::Path) -> Result<()> {
    let (python, path) = peers::python()?;
    let status = Command::new(&python)
        .env("PYTHONPATH", path)
        .arg(peers::script(script))
        .arg(folder)
        .status()
        .with_context(|| format!("cannot start {python}"))?;
    if !status.success() {
        bail!("{script} failed: is matplotlib there? Remove .peers to have it installed again");
    }
    Ok(())
}
