//! Photos whose answer is known, so that a wrong or swapped one is seen.

use std::io::Cursor;

use anyhow::{Context, Result, ensure};

use crate::photos;
use crate::stack::workspace;

/// Photos of the source tree, each of another class.
const NAMES: [&str; 5] = [
    "dam",
    "goldfish",
    "komodo-dragon",
    "polar-bear",
    "scarlet-macaw",
];

/// A photo in the media types that the kinds of requests have.
pub struct Photo {
    /// What it shows.
    pub name: &'static str,
    /// As a JPEG.
    pub jpeg: Vec<u8>,
    /// The same pixels as a PNG.
    pub png: Vec<u8>,
    /// Index of the class that the model gives, as it is and as a code.
    pub class: u64,
}

/// The photos of the tree, at `side` pixels. Their classes are not known yet.
///
/// # Errors
/// If one cannot be read.
pub fn load(side: u32) -> Result<Vec<Photo>> {
    let folder = workspace().join("examples/photos");
    let photo = |name| {
        let file = folder.join(name).with_extension("jpg");
        let crop = photos::centre_crop(&file, side, side)?;
        let mut png = Cursor::new(Vec::new());
        crop.write_to(&mut png, image::ImageFormat::Png)?;
        Ok(Photo {
            name,
            jpeg: photos::jpeg(&crop, 90)?,
            png: png.into_inner(),
            class: 0,
        })
    };
    NAMES.into_iter().map(photo).collect()
}

/// The class of the model server's answer.
///
/// # Errors
/// If it is not one of its answers.
pub fn class(body: &[u8]) -> Result<u64> {
    let json: serde_json::Value = serde_json::from_slice(body)?;
    let index = json.pointer("/predictions/0/index");
    index
        .and_then(serde_json::Value::as_u64)
        .context("no prediction in the answer")
}

/// Keeps photos whose classes differ from each other.
///
/// # Errors
/// If fewer than three are left.
pub fn distinct(mut photos: Vec<Photo>) -> Result<Vec<Photo>> {
    let mut seen = Vec::new();
    photos.retain(|photo| {
        let new = !seen.contains(&photo.class);
        seen.push(photo.class);
        new
    });
    ensure!(
        photos.len() >= 3,
        "too few photos of different classes to tell answers apart"
    );
    Ok(photos)
}
