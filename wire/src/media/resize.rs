//! Pictures reduced before they are coded, and brought back to their size after.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Picture;

/// The size at which a picture of `width` x `height` is coded where its longer side may have
/// `max_side` pixels; 0 sets no bound. Never larger than the picture, never without pixels.
#[must_use]
pub fn coded_size(width: u32, height: u32, max_side: u32) -> (u32, u32) {
    let longer = width.max(height);
    if max_side == 0 || longer <= max_side {
        return (width, height);
    }
    let scaled = |side: u32| {
        let (side, longer) = (u64::from(side), u64::from(longer));
        // To the nearest; at most `max_side`, which is a u32.
        ((side * u64::from(max_side) + longer / 2) / longer).max(1) as u32
    };
    (scaled(width), scaled(height))
}

/// Pixels (`width * height * 3` bytes) at another size: `None` only if their number does not fit.
pub(super) fn resize(rgb: &[u8], from: (u32, u32), to: (u32, u32)) -> Option<Vec<u8>> {
    let source = ImageRef::new(from.0, from.1, rgb, PixelType::U8x3).ok()?;
    let mut target = Image::new(to.0, to.1, PixelType::U8x3);
    // A wide filter keeps a reduced picture sharp; enlarged, it would ring.
    let filter = if to.0 < from.0 || to.1 < from.1 {
        FilterType::Lanczos3
    } else {
        FilterType::CatmullRom
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize(&source, &mut target, &options).ok()?;
    Some(target.into_vec())
}

impl Picture {
    /// The same picture with other sides.
    ///
    /// # Panics
    /// If `rgb` has not the size that the picture says, or a side is 0.
    #[must_use]
    pub fn resized(mut self, width: u32, height: u32) -> Self {
        if (width, height) != (self.width, self.height) {
            assert!(width > 0 && height > 0, "a picture without pixels");
            let resized = resize(&self.rgb, (self.width, self.height), (width, height));
            #[allow(clippy::expect_used)] // a bug of the caller, not bad input
            let rgb = resized.expect("as many pixels as the picture says");
            (self.width, self.height, self.rgb) = (width, height, rgb);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Color;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sizes_are_bounded_and_keep_their_shape(width in 1_u32..20_000, height in 1_u32..20_000, max_side in 0_u32..5000) {
            let (w, h) = coded_size(width, height, max_side);
            prop_assert!(1 <= w && w <= width && 1 <= h && h <= height);
            if max_side > 0 {
                prop_assert!(w.max(h) <= max_side);
                let exact = f64::from(width.min(height)) * f64::from(w.max(h)) / f64::from(width.max(height));
                prop_assert!((f64::from(w.min(h)) - exact).abs() <= 1.0);
            } else {
                prop_assert_eq!((w, h), (width, height));
            }
        }
    }

    #[test]
    fn a_smooth_picture_survives_the_way_down_and_up() {
        let (width, height) = (301_u32, 199_u32);
        let rgb: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [(x / 2) as u8, y as u8, 90]))
            .collect();
        let picture = Picture {
            width,
            height,
            color: Color::Rgb,
            orientation: 6,
            rgb,
        };
        let (w, h) = coded_size(width, height, 100);
        assert_eq!((w, h), (100, 66));
        let back = picture.clone().resized(w, h).resized(width, height);
        assert_eq!(
            (back.width, back.height, back.orientation),
            (width, height, 6)
        );
        let worst = back.rgb.iter().zip(&picture.rgb);
        let worst = worst.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 4, "{worst}");
        assert_eq!(picture.clone().resized(width, height), picture);
    }
}
