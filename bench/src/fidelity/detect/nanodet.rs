//! `NanoDet` (RangiLyu/nanodet): scores of 80 classes and, for each side of a box, a distribution over
//! its distance from the place (generalised focal loss, Li et al. 2020), at strides 8, 16 and 32.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use image::imageops::FilterType;
use sidecod_model_server::model;
use tract_onnx::prelude::*;

use super::boxes::{Found, Rect, surest};

/// Side of the square that the model takes.
const SIDE: u32 = 416;
const STRIDES: [u32; 3] = [8, 16, 32];
const CLASSES: usize = 80;
/// Distances of a distribution: 0 to 10 strides.
const BINS: usize = 11;
/// Blue, green, red.
const MEAN: [f32; 3] = [103.53, 116.28, 123.675];
const STD: [f32; 3] = [57.375, 57.12, 58.395];
/// As its authors evaluate: scores from here on, at most so much overlap, at most so many boxes.
const LEAST: f32 = 0.05;
const OVERLAP: f32 = 0.6;
const MOST: usize = 100;

/// The detector.
pub struct NanoDet {
    plan: Arc<TypedRunnableModel>,
}

impl NanoDet {
    /// Reads the ONNX file: one input `[1, 3, 416, 416]`, first the scores of the three strides, then
    /// their distributions.
    ///
    /// # Errors
    /// If it cannot be read, or has not six outputs.
    pub fn load(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let file = std::fs::read(path).with_context(|| format!("cannot read {}", name()))?;
        let side = SIDE as usize;
        let plan = model::plan(&file, [1, 3, side, side]).with_context(name)?;
        let outputs = plan.model().outputs.len();
        ensure!(
            outputs == 2 * STRIDES.len(),
            "{}: {outputs} outputs, expected the 6 of NanoDet",
            name()
        );
        Ok(Self { plan })
    }

    /// Boxes in a picture, in its pixels, the surest first.
    ///
    /// # Errors
    /// If the model fails.
    pub fn boxes(&self, picture: &RgbImage) -> Result<Vec<Found>> {
        let (planes, scale) = planes(picture);
        let side = SIDE as usize;
        let input = Tensor::from_shape(&[1, 3, side, side], &planes)?;
        let outputs = self.plan.run(tvec!(input.into()))?;
        let values = |at: usize| -> Result<Vec<f32>> {
            let output = outputs.get(at).context("an output is missing")?;
            Ok(output
                .to_plain_array_view::<f32>()?
                .iter()
                .copied()
                .collect())
        };
        let mut found = Vec::new();
        for (at, stride) in STRIDES.into_iter().enumerate() {
            let (scores, distances) = (values(at)?, values(STRIDES.len() + at)?);
            found.extend(read(&scores, &distances, stride)?);
        }
        let mut found = surest(found, OVERLAP, MOST);
        let (width, height) = (picture.width() as f32, picture.height() as f32);
        for each in &mut found {
            let [left, top, right, bottom] = each.rect.edges.map(|edge| edge / scale);
            each.rect.edges = [
                left.clamp(0.0, width),
                top.clamp(0.0, height),
                right.clamp(0.0, width),
                bottom.clamp(0.0, height),
            ];
        }
        Ok(found)
    }
}

/// What the model takes of a picture, which is scaled to fit into the square's upper left corner; and
/// the scale.
fn planes(picture: &RgbImage) -> (Vec<f32>, f32) {
    let (width, height) = picture.dimensions();
    let scale = SIDE as f32 / width.max(height).max(1) as f32;
    let scaled = |length: u32| ((length as f32 * scale).round() as u32).clamp(1, SIDE);
    let small =
        image::imageops::resize(picture, scaled(width), scaled(height), FilterType::Triangle);
    let area = (SIDE * SIDE) as usize;
    // The mean colour beside it.
    let mut planes = vec![0.0; 3 * area];
    for (x, y, pixel) in small.enumerate_pixels() {
        let at = (y * SIDE + x) as usize;
        for channel in 0..3 {
            let value = f32::from(pixel[2 - channel]);
            planes[channel * area + at] = (value - MEAN[channel]) / STD[channel];
        }
    }
    (planes, scale)
}

/// Boxes of one stride, in pixels of the square: `scores` are `[places, 80]` between 0 and 1,
/// `distances` `[places, 4, 11]` logits for left, top, right and bottom.
fn read(scores: &[f32], distances: &[f32], stride: u32) -> Result<Vec<Found>> {
    let across = (SIDE / stride) as usize;
    let places = across * across;
    ensure!(
        scores.len() == places * CLASSES && distances.len() == places * 4 * BINS,
        "stride {stride}: {} scores and {} distances, expected {places} places",
        scores.len(),
        distances.len()
    );
    let mut found = Vec::new();
    for (place, scores) in scores.chunks_exact(CLASSES).enumerate() {
        let sure = scores.iter().enumerate().filter(|(_, s)| **s >= LEAST);
        let mut sure = sure.peekable();
        if sure.peek().is_none() {
            continue;
        }
        let sides = &distances[place * 4 * BINS..][..4 * BINS];
        let sides: Vec<f32> = sides
            .chunks_exact(BINS)
            .map(|logits| expected(logits) * stride as f32)
            .collect();
        let x = ((place % across) as f32 + 0.5) * stride as f32;
        let y = ((place / across) as f32 + 0.5) * stride as f32;
        let rect = Rect {
            edges: [x - sides[0], y - sides[1], x + sides[2], y + sides[3]],
        };
        found.extend(sure.map(|(class, score)| Found {
            rect,
            class,
            score: *score,
        }));
    }
    Ok(found)
}

/// The mean of the distribution that these logits are of, in bins.
fn expected(logits: &[f32]) -> f32 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (bin, logit) in logits.iter().enumerate() {
        let power = (logit - greatest).exp();
        sum += power;
        weighted += power * bin as f32;
    }
    weighted / sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_its_class_and_its_distances_make_a_box() {
        let mut scores = vec![0.01; 169 * CLASSES];
        let mut distances = vec![0.0; 169 * 4 * BINS];
        // Row 2, column 3 of 13; class 17; one, two, three strides, and between four and five.
        let place = 2 * 13 + 3;
        scores[place * CLASSES + 17] = 0.8;
        for (side, bins) in [(0, &[1][..]), (1, &[2]), (2, &[3]), (3, &[4, 5])] {
            for bin in bins {
                distances[(place * 4 + side) * BINS + bin] = 40.0;
            }
        }
        let found = read(&scores, &distances, 32).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].class, found[0].score), (17, 0.8));
        let (x, y) = (3.5 * 32.0, 2.5 * 32.0);
        let expected = [x - 32.0, y - 64.0, x + 96.0, y + 4.5 * 32.0];
        for (edge, expected) in found[0].rect.edges.iter().zip(expected) {
            assert!((edge - expected).abs() < 1e-3, "{:?}", found[0]);
        }
        assert!(read(&scores, &distances[1..], 32).is_err());
    }

    #[test]
    fn no_preference_is_the_middle_of_the_bins() {
        assert!((expected(&[0.3; BINS]) - 5.0).abs() < 1e-5);
    }

    #[test]
    fn a_picture_lies_in_the_corner_of_the_square() {
        let picture = RgbImage::from_pixel(640, 320, image::Rgb([255, 0, 0]));
        let (planes, scale) = planes(&picture);
        assert!((scale - 0.65).abs() < 1e-6);
        let area = (SIDE * SIDE) as usize;
        // Red is the last plane.
        assert!((planes[2 * area] - (255.0 - 123.675) / 58.395).abs() < 1e-4);
        assert!((planes[0] + 103.53 / 57.375).abs() < 1e-4);
        let below = (209 * SIDE) as usize;
        assert!(planes[below].abs() < 1e-6);
    }
}
