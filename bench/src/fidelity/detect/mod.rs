//! A detector's boxes on whole photos: those of the uncompressed photo against those of the decoded one.

mod boxes;
mod nanodet;
mod precision;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use image::imageops::FilterType;
use indicatif::ProgressBar;
use serde::Serialize;

pub use nanodet::NanoDet;
use precision::Table;

use super::stats::Bootstrap;
use super::{Codec, Coded, parallel};
use crate::photos;

/// Longer side to which photos are reduced before they are coded. None is enlarged.
const LONG: u32 = 640;
/// Boxes of the uncompressed photo count from this score on.
const CERTAIN: f32 = 0.4;
const ROUNDS: usize = 100;

/// What a detector makes of a codec's photos.
#[derive(Debug, Serialize)]
pub struct Detection {
    /// Mean bytes of a photo.
    pub bytes_mean: f64,
    /// Mean average precision at an intersection over union of 0.5.
    pub map_50: f64,
    /// Its middle 95 %, by bootstrap over photos.
    pub map_50_ci: Option<[f64; 2]>,
    /// The mean over 0.5, 0.55, ... 0.95.
    pub map_50_95: f64,
    /// Its middle 95 %.
    pub map_50_95_ci: Option<[f64; 2]>,
    /// Mean milliseconds to encode a photo, on one core.
    pub encode_ms: f64,
}

/// What there was to detect.
#[derive(Debug, Serialize)]
pub struct Scene {
    /// Photos.
    pub photos: usize,
    /// Boxes of the uncompressed photos.
    pub boxes: usize,
    /// Classes that they are of.
    pub classes: usize,
}

/// Codes whole photos with every codec and compares the detector's boxes. One entry for each codec.
///
/// # Errors
/// If a photo, the detector or a codec fails, or nothing is detected in any photo.
pub fn measure(
    detector: &NanoDet,
    codecs: &mut [Box<dyn Codec>],
    paths: &[PathBuf],
    most: Option<usize>,
    bar: &ProgressBar,
) -> Result<(Vec<Detection>, Scene)> {
    let count = most.map_or(paths.len(), |most| most.min(paths.len()));
    let mut pictures = Vec::with_capacity(count);
    for at in 0..count {
        pictures.push(reduced(photos::read(&paths[at * paths.len() / count])?));
    }
    let views: Vec<&RgbImage> = pictures.iter().collect();
    let wanted = parallel(&views, |picture| detector.boxes(picture))?;
    let wanted: Vec<Vec<boxes::Found>> = wanted
        .into_iter()
        .map(|found| found.into_iter().filter(|f| f.score >= CERTAIN).collect())
        .collect();
    let scene = Scene {
        photos: count,
        boxes: wanted.iter().map(Vec::len).sum(),
        classes: precision::classes(&wanted).len(),
    };
    ensure!(scene.boxes > 0, "the detector sees nothing in the photos");
    bar.set_length((count * codecs.len()) as u64);
    let bootstrap = Bootstrap::new(count, ROUNDS);
    let mut all = Vec::with_capacity(codecs.len());
    for codec in codecs.iter_mut() {
        bar.set_message(format!("{} {}", codec.name(), codec.quality()));
        let coded: Vec<Coded> = views
            .iter()
            .map(|picture| codec.code(picture))
            .collect::<Result<_>>()
            .with_context(|| format!("{} {}", codec.name(), codec.quality()))?;
        let decoded: Vec<&RgbImage> = coded.iter().map(|coded| &coded.pixels).collect();
        let found = parallel(&decoded, |picture| detector.boxes(picture))?;
        let table = Table::new(&wanted, &found);
        let every: Vec<usize> = (0..count).collect();
        let [map_50, map_50_95] = table.precision(&every).unwrap_or_default();
        let interval =
            |at: usize| bootstrap.interval(|draw| table.precision(draw).map(|both| both[at]));
        let mean = |value: fn(&Coded) -> f64| coded.iter().map(value).sum::<f64>() / count as f64;
        all.push(Detection {
            bytes_mean: mean(|coded| coded.bytes as f64),
            map_50,
            map_50_ci: interval(0),
            map_50_95,
            map_50_95_ci: interval(1),
            encode_ms: mean(|coded| coded.encode.as_secs_f64() * 1e3),
        });
        bar.inc(count as u64);
    }
    Ok((all, scene))
}

fn reduced(picture: RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let (w, h) = sidecod_wire::media::coded_size(width, height, LONG);
    if (w, h) == (width, height) {
        return picture;
    }
    image::imageops::resize(&picture, w, h, FilterType::Lanczos3)
}
