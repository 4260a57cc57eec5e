//! Photos of a folder, and the crops that are sent.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{ImageReader, RgbImage};

/// The photos of a folder, sorted by name. With a split, those that the folder's `index.csv`
/// (columns `file`, `split`, ...) puts into it.
///
/// # Errors
/// If the folder or its index cannot be read, or no photo is left.
pub fn list(folder: &Path, split: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut photos: Vec<PathBuf> = match split {
        Some(split) => {
            let index = folder.join("index.csv");
            let text = std::fs::read_to_string(&index)
                .with_context(|| format!("cannot read {}", index.display()))?;
            text.lines()
                .filter_map(|line| {
                    let mut columns = line.split(',');
                    let file = columns.next()?;
                    (columns.next()? == split).then(|| folder.join(file))
                })
                .collect()
        }
        None => files(folder, &["jpg", "jpeg", "png", "webp"])?,
    };
    photos.sort();
    ensure!(!photos.is_empty(), "no photos in {}", folder.display());
    Ok(photos)
}

/// The files of a folder that have one of these extensions, in no order.
///
/// # Errors
/// If the folder cannot be read.
pub fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let named = paths.filter(|path| {
        let extension = path.extension().unwrap_or_default();
        let mut known = extensions.iter();
        known.any(|known| extension.eq_ignore_ascii_case(known))
    });
    Ok(named.collect())
}

/// The pixels of a photo.
///
/// # Errors
/// If the file is no photo that can be decoded.
pub fn read(photo: &Path) -> Result<RgbImage> {
    Ok(ImageReader::open(photo)
        .and_then(ImageReader::with_guessed_format)
        .with_context(|| format!("cannot read {}", photo.display()))?
        .decode()
        .with_context(|| format!("cannot decode {}", photo.display()))?
        .into_rgb8())
}

/// The middle of a photo: short side scaled to `short`, then a square of `side` pixels.
///
/// # Errors
/// If the file is no photo that can be decoded.
pub fn centre_crop(photo: &Path, short: u32, side: u32) -> Result<RgbImage> {
    let picture = read(photo)?;
    let (width, height) = picture.dimensions();
    let scale =
        |length: u32| (u64::from(length) * u64::from(short) / u64::from(width.min(height))) as u32;
    let (width, height) = (scale(width).max(short), scale(height).max(short));
    let scaled = image::imageops::resize(&picture, width, height, FilterType::Triangle);
    Ok(
        image::imageops::crop_imm(&scaled, (width - side) / 2, (height - side) / 2, side, side)
            .to_image(),
    )
}

/// A picture as a JPEG file.
///
/// # Errors
/// If the encoder refuses the picture.
pub fn jpeg(picture: &RgbImage, quality: u8) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality).encode_image(picture)?;
    Ok(file)
}
