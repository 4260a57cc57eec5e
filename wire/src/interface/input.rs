//! From a photo to a model's input.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde::Deserialize;

use super::wrong;
use crate::bundle::BundleError;
use crate::media::Picture;

/// Longest side that is taken for a model's input, in pixels.
const MAX_SIDE: u32 = 4096;

/// The square in the middle of an upright photo, scaled and normalised.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Sides of the model's input in pixels.
    pub side: u32,
    /// The photo's shorter side is scaled to this many pixels (triangle filter); from its middle the
    /// input is cut out.
    pub short_side: u32,
    /// Taken off each channel's values, 0 to 255; red first.
    pub mean: [f32; 3],
    /// What they are then divided by.
    pub std: [f32; 3],
}

impl Input {
    pub(crate) fn check(&self) -> Result<(), BundleError> {
        if !(1..=MAX_SIDE).contains(&self.side) {
            return wrong("input.side", &self.side, &format!("1 to {MAX_SIDE}"));
        }
        if !(self.side..=2 * MAX_SIDE).contains(&self.short_side) {
            let expected = format!("{} to {}", self.side, 2 * MAX_SIDE);
            return wrong("input.short_side", &self.short_side, &expected);
        }
        let finite = self.mean.iter().chain(&self.std).all(|v| v.is_finite());
        if !finite || self.std.contains(&0.0) {
            let value = format!("{:?}, {:?}", self.mean, self.std);
            return wrong("input.mean and input.std", &value, "numbers, std not 0");
        }
        Ok(())
    }

    /// Values of the model's input: three planes (red, green, blue) of `side` rows of `side`.
    ///
    /// # Panics
    /// If `rgb` has not the size that the picture says, or the picture has no pixels.
    #[must_use]
    pub fn values(&self, picture: &Picture) -> Vec<f32> {
        let square = self.square(picture);
        let side = self.side as usize;
        let mut values = Vec::with_capacity(3 * side * side);
        for channel in 0..3 {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            for y in 0..side {
                for x in 0..side {
                    let (row, column) = stored(picture.orientation, side, y, x);
                    let value = square[(row * side + column) * 3 + channel];
                    values.push((f32::from(value) - mean) / std);
                }
            }
        }
        values
    }

    /// The pixels of the input before they are turned upright.
    fn square(&self, picture: &Picture) -> Vec<u8> {
        let (width, height) = (picture.width, picture.height);
        let short = width.min(height);
        let (left, top) = ((width - short) / 2, (height - short) / 2);
        let mut scaled = Image::new(self.short_side, self.short_side, PixelType::U8x3);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .crop(left.into(), top.into(), short.into(), short.into());
        let source = ImageRef::new(width, height, &picture.rgb, PixelType::U8x3);
        #[allow(clippy::expect_used)] // a bug of the caller, not bad input
        let source = source.expect("as many pixels as the picture says");
        #[allow(clippy::expect_used)] // the cut lies inside the picture
        Resizer::new()
            .resize(&source, &mut scaled, &options)
            .expect("a cut inside the picture");
        let (side, across) = (self.side as usize, self.short_side as usize);
        let margin = (across - side) / 2;
        let pixels = scaled.buffer();
        let row = |y: usize| &pixels[((y + margin) * across + margin) * 3..][..side * 3];
        (0..side).flat_map(row).copied().collect()
    }
}

/// Where in a stored square the pixel stands that belongs at `y`, `x` of the upright one, by its
/// EXIF orientation.
fn stored(orientation: u8, side: usize, y: usize, x: usize) -> (usize, usize) {
    let last = side - 1;
    match orientation {
        2 => (y, last - x),
        3 => (last - y, last - x),
        4 => (last - y, x),
        5 => (x, y),
        6 => (last - x, y),
        7 => (last - x, last - y),
        8 => (x, last - y),
        _ => (y, x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Color;

    fn input(side: u32, short_side: u32) -> Input {
        Input {
            side,
            short_side,
            mean: [0.0, 10.0, 20.0],
            std: [1.0, 2.0, 4.0],
        }
    }

    fn picture(width: u32, height: u32, orientation: u8, red: impl Fn(u32, u32) -> u8) -> Picture {
        let rgb = (0..height)
            .flat_map(|y| (0..width).map(move |x| (y, x)))
            .flat_map(|(y, x)| [red(y, x), 110, 220])
            .collect();
        Picture {
            width,
            height,
            color: Color::Rgb,
            orientation,
            rgb,
        }
    }

    #[test]
    fn planes_are_normalised_one_by_one() {
        let values = input(4, 6).values(&picture(9, 12, 1, |_, _| 7));
        assert_eq!(values.len(), 48);
        assert!(values[..16].iter().all(|v| (*v - 7.0).abs() < 1e-6));
        assert!(values[16..32].iter().all(|v| (*v - 50.0).abs() < 1e-6));
        assert!(values[32..].iter().all(|v| (*v - 50.0).abs() < 1e-6));
    }

    #[test]
    fn the_middle_of_the_middle_square_is_taken() {
        // Columns 4 to 11 are the square, 6 to 9 its middle.
        let values = input(4, 8).values(&picture(16, 8, 1, |_, x| x as u8));
        assert_eq!(values[..4], [6.0, 7.0, 8.0, 9.0]);
        let values = input(4, 8).values(&picture(8, 16, 1, |y, _| y as u8));
        let column: Vec<f32> = values[..16].iter().step_by(4).copied().collect();
        assert_eq!(column[..], [6.0, 7.0, 8.0, 9.0]);
    }

    #[test]
    fn orientations_are_those_of_exif() {
        // Corners of the stored square, row by row: 1 2 / 3 4. Upright as TIFF 6.0 has it.
        for (orientation, upright) in [
            (1, [1.0, 2.0, 3.0, 4.0]),
            (2, [2.0, 1.0, 4.0, 3.0]),
            (3, [4.0, 3.0, 2.0, 1.0]),
            (4, [3.0, 4.0, 1.0, 2.0]),
            (5, [1.0, 3.0, 2.0, 4.0]),
            (6, [3.0, 1.0, 4.0, 2.0]),
            (7, [4.0, 2.0, 3.0, 1.0]),
            (8, [2.0, 4.0, 1.0, 3.0]),
        ] {
            let stored = picture(2, 2, orientation, |y, x| (1 + 2 * y + x) as u8);
            assert_eq!(input(2, 2).values(&stored)[..4], upright, "{orientation}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (input, says) in [
            (input(0, 4), "input.side is 0, expected 1 to 4096"),
            (input(8, 4), "input.short_side is 4, expected 8 to 8192"),
            (
                Input {
                    std: [1.0, 0.0, 1.0],
                    ..input(4, 4)
                },
                "expected numbers, std not 0",
            ),
        ] {
            let error = input.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(input(4, 4).check().is_ok());
    }
}
