//! 224x224 crops: each photo at two scales, the middle and the four corners of each.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use image::imageops::FilterType;

use crate::photos;

/// Short sides to which photos are reduced. None is enlarged.
const SHORT: [u32; 2] = [256, 384];

/// One crop.
pub struct Crop {
    /// Index of its photo.
    pub photo: usize,
    /// Its pixels.
    pub pixels: RgbImage,
}

/// The crops of some photos, and how many photos are too small for any.
///
/// # Errors
/// If a photo cannot be read, or all are too small.
pub fn cut(paths: &[PathBuf], side: u32, most: Option<usize>) -> Result<(Vec<Crop>, usize)> {
    let mut places = Vec::new();
    let mut small = 0;
    for (photo, path) in paths.iter().enumerate() {
        let (width, height) = image::image_dimensions(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let short = width.min(height);
        let mut scales: Vec<u32> = SHORT.into_iter().filter(|scale| *scale <= short).collect();
        if scales.is_empty() && short >= side {
            scales.push(short);
        }
        small += usize::from(scales.is_empty());
        for scale in scales {
            places.extend((0..5).map(|place| (photo, scale, place)));
        }
    }
    ensure!(
        !places.is_empty(),
        "no photo has {side} pixels on its short side"
    );
    if let Some(most) = most.filter(|most| *most < places.len()) {
        let all = places.len();
        places = (0..most).map(|i| places[i * all / most]).collect();
    }
    let mut crops = Vec::with_capacity(places.len());
    let mut open: Option<((usize, u32), RgbImage)> = None;
    for (photo, scale, place) in places {
        let scaled = match open.take() {
            Some((key, scaled)) if key == (photo, scale) => scaled,
            _ => reduced(&paths[photo], scale)?,
        };
        let (right, bottom) = (scaled.width() - side, scaled.height() - side);
        let (x, y) = [
            (right / 2, bottom / 2),
            (0, 0),
            (right, 0),
            (0, bottom),
            (right, bottom),
        ][place];
        let pixels = image::imageops::crop_imm(&scaled, x, y, side, side).to_image();
        crops.push(Crop { photo, pixels });
        open = Some(((photo, scale), scaled));
    }
    Ok((crops, small))
}

/// A photo with its short side reduced to `short`.
fn reduced(path: &Path, short: u32) -> Result<RgbImage> {
    let picture = photos::read(path)?;
    let (width, height) = picture.dimensions();
    let least = u64::from(width.min(height));
    let scaled = |side: u32| (u64::from(side) * u64::from(short)).div_ceil(least) as u32;
    let (width, height) = (scaled(width), scaled(height));
    Ok(image::imageops::resize(
        &picture,
        width,
        height,
        FilterType::Lanczos3,
    ))
}
