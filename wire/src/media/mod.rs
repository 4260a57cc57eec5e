//! Photos as bytes and as pixels.
//!
//! [`decode`] is strict: what cannot be given back faithfully after a trip through the codec
//! (transparency, more than 8 bits, CMYK, animation, a damaged or truncated file) is an error, and
//! the request then goes on with its original bytes.
//!
//! Pixels are taken as they are stored. The EXIF orientation travels beside them and is written
//! into the new file, never applied: whether it is honoured is the model server's own habit. Other
//! metadata (colour profiles, GPS, thumbnails) does not cross the link.

mod bmp;
mod exif;
mod jpeg;
mod png;
mod resize;
mod webp;

use crate::limits::{Limits, TooLarge};
pub use resize::coded_size;

/// Media type of a photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// `image/jpeg`
    Jpeg,
    /// `image/png`
    Png,
    /// `image/webp`
    WebP,
    /// `image/bmp`, which is only written: a model server reads it fastest.
    Bmp,
    /// `image/avif`, which a device writes to cross as it is. No frame names it.
    Avif,
}

impl MediaType {
    /// Tells a photo's type by its first bytes.
    #[must_use]
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else {
            None
        }
    }

    /// The name that IANA registers.
    #[must_use]
    pub fn mime(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::Bmp => "image/bmp",
            Self::Avif => "image/avif",
        }
    }

    pub(crate) fn id(self) -> u8 {
        match self {
            Self::Jpeg => 0,
            Self::Png => 1,
            Self::WebP => 2,
            Self::Bmp => 3,
            Self::Avif => 4,
        }
    }

    pub(crate) fn from_id(id: u8) -> Option<Self> {
        [Self::Jpeg, Self::Png, Self::WebP, Self::Bmp]
            .into_iter()
            .find(|media| media.id() == id)
    }
}

/// Whether a photo's file has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Color {
    /// Three channels.
    Rgb,
    /// One channel.
    Gray,
}

/// A photo's pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels, as stored (before any EXIF rotation).
    pub width: u32,
    /// Height in pixels, as stored.
    pub height: u32,
    /// Whether the file is written grey.
    pub color: Color,
    /// EXIF orientation, 1 to 8; 1 is upright, and what a file without one has.
    pub orientation: u8,
    /// `width * height * 3` bytes, row by row, red first. Grey pixels have three equal bytes.
    pub rgb: Vec<u8>,
}

/// Why a photo is not decoded or encoded.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The bytes are of no known media type.
    #[error("neither JPEG, PNG nor WebP")]
    Unknown,
    /// A valid photo that the codec would not give back faithfully.
    #[error("{media}: {what} is not coded")]
    Unsupported {
        /// The media type.
        media: &'static str,
        /// What the photo has.
        what: &'static str,
    },
    /// The file is damaged, truncated, or not decodable here.
    #[error("{media}: {reason}")]
    Damaged {
        /// The media type.
        media: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The picture is larger than the limits allow.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The pixels cannot be written as this media type.
    #[error("cannot write {width}x{height} as {media}: {reason}")]
    Encode {
        /// The media type.
        media: &'static str,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// What the encoder said.
        reason: String,
    },
}

/// Decodes a photo, whatever of the three types it is.
///
/// # Errors
/// [`MediaError`]; nothing of the picture's size is allocated before `limits` have been checked.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, MediaError> {
    let media = MediaType::sniff(bytes).ok_or(MediaError::Unknown)?;
    let (width, height, color, rgb) = match media {
        MediaType::Jpeg => jpeg::decode(bytes, limits)?,
        MediaType::Png => png::decode(bytes, limits)?,
        MediaType::WebP => webp::decode(bytes, limits)?,
        // No bytes are sniffed as one.
        MediaType::Bmp | MediaType::Avif => return Err(MediaError::Unknown),
    };
    Ok(Picture {
        width,
        height,
        color,
        orientation: exif::orientation(bytes),
        rgb,
    })
}

/// Width and height that a photo's header says, without decoding it; none where it says none.
#[must_use]
pub fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    match MediaType::sniff(bytes)? {
        MediaType::Jpeg => jpeg::size(bytes),
        MediaType::Png => png::size(bytes),
        MediaType::WebP => webp::size(bytes),
        MediaType::Bmp | MediaType::Avif => None,
    }
}

/// Writes a picture as a small baseline JPEG, chroma at half the resolution.
/// `quality` is that of libjpeg, 1 to 100.
///
/// # Errors
/// [`MediaError::Encode`] as [`encode`].
pub fn encode_jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>, MediaError> {
    write(picture, MediaType::Jpeg, Some(quality))
}

/// The EXIF block of a file with this orientation, 1 to 8; none for an upright one.
#[must_use]
pub fn exif_block(orientation: u8) -> Option<Vec<u8>> {
    (orientation != 1).then(|| exif::block(orientation))
}

/// Writes a picture as a file: JPEG at quality 95 without chroma subsampling, PNG, WebP and BMP
/// without loss. BMP has no place for an orientation.
///
/// # Errors
/// [`MediaError::Encode`] if the type cannot hold a picture of this size, or if `rgb` has not the
/// length that `width` and `height` ask for.
pub fn encode(picture: &Picture, media: MediaType) -> Result<Vec<u8>, MediaError> {
    write(picture, media, None)
}

fn write(picture: &Picture, media: MediaType, quality: Option<u8>) -> Result<Vec<u8>, MediaError> {
    let failed = |reason: String| MediaError::Encode {
        media: media.mime(),
        width: picture.width,
        height: picture.height,
        reason,
    };
    let pixels = u64::from(picture.width) * u64::from(picture.height);
    if pixels * 3 != picture.rgb.len() as u64 {
        return Err(failed(format!("{} bytes of pixels", picture.rgb.len())));
    }
    let grey;
    let samples = match picture.color {
        Color::Rgb => &picture.rgb,
        Color::Gray => {
            grey = luma(&picture.rgb);
            &grey
        }
    };
    let exif = exif_block(picture.orientation);
    match media {
        MediaType::Jpeg => jpeg::encode(picture, samples, exif.as_deref(), quality).map_err(failed),
        MediaType::Png => png::encode(picture, samples, exif).map_err(failed),
        MediaType::WebP => webp::encode(picture, samples, exif).map_err(failed),
        MediaType::Bmp => bmp::encode(picture).map_err(failed),
        MediaType::Avif => Err(failed("there is no encoder without loss".to_owned())),
    }
}

/// Width, height, colour and pixels.
type Decoded = (u32, u32, Color, Vec<u8>);

/// ITU-R BT.601 luma, in 1/65536.
fn luma(rgb: &[u8]) -> Vec<u8> {
    rgb.chunks_exact(3)
        .map(|p| {
            let sum = 19_595 * u32::from(p[0]) + 38_470 * u32::from(p[1]) + 7471 * u32::from(p[2]);
            ((sum + 0x8000) >> 16) as u8
        })
        .collect()
}

fn repeat_grey(grey: &[u8]) -> Vec<u8> {
    grey.iter().flat_map(|&value| [value; 3]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn gradient(width: u32, height: u32, color: Color) -> Picture {
        let rgb = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| match color {
                Color::Rgb => [(x * 3) as u8, (y * 2) as u8, (x + y) as u8],
                Color::Gray => [(x + 2 * y) as u8; 3],
            })
            .collect();
        Picture {
            width,
            height,
            color,
            orientation: 1,
            rgb,
        }
    }

    fn limits() -> Limits {
        Limits::default()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn lossless_types_give_every_pixel_back(
            (width, height) in (1_u32..40, 1_u32..40),
            grey in any::<bool>(),
            orientation in 1_u8..=8,
            png in any::<bool>(),
        ) {
            let color = if grey { Color::Gray } else { Color::Rgb };
            // WebP knows no grey.
            let (media, color) = if png { (MediaType::Png, color) } else { (MediaType::WebP, Color::Rgb) };
            let picture = Picture { orientation, ..gradient(width, height, color) };
            let file = encode(&picture, media).unwrap();
            prop_assert_eq!(MediaType::sniff(&file), Some(media));
            prop_assert_eq!(decode(&file, &limits()).unwrap(), picture);
        }

        #[test]
        fn jpeg_keeps_size_colour_orientation_and_nearly_the_pixels(
            (width, height) in (1_u32..80, 1_u32..80),
            grey in any::<bool>(),
            orientation in 1_u8..=8,
        ) {
            let color = if grey { Color::Gray } else { Color::Rgb };
            let picture = Picture { orientation, ..gradient(width, height, color) };
            let back = decode(&encode(&picture, MediaType::Jpeg).unwrap(), &limits()).unwrap();
            prop_assert_eq!((back.width, back.height, back.color, back.orientation), (width, height, color, orientation));
            let far = picture.rgb.iter().zip(&back.rgb).filter(|(a, b)| a.abs_diff(**b) > 24).count();
            prop_assert!(far * 50 <= picture.rgb.len(), "{} of {} samples are far off", far, picture.rgb.len());
        }
    }

    #[test]
    fn truncated_files_are_errors() {
        for (media, color) in [
            (MediaType::Jpeg, Color::Rgb),
            (MediaType::Jpeg, Color::Gray),
            (MediaType::Png, Color::Rgb),
            (MediaType::WebP, Color::Rgb),
        ] {
            let file = encode(&gradient(61, 47, color), media).unwrap();
            for len in 0..file.len() {
                // The last bytes of a PNG are an empty chunk that no pixel needs.
                if media == MediaType::Png && len >= file.len() - 12 {
                    continue;
                }
                assert!(
                    decode(&file[..len], &limits()).is_err(),
                    "{media:?} {color:?} cut to {len}"
                );
            }
        }
    }

    #[test]
    fn flipped_bits_never_panic_and_never_exceed_the_limits() {
        let limits = Limits {
            max_side: 256,
            max_pixels: 40_000,
            ..Limits::default()
        };
        for media in [MediaType::Jpeg, MediaType::Png, MediaType::WebP] {
            let file = encode(
                &Picture {
                    orientation: 6,
                    ..gradient(33, 21, Color::Rgb)
                },
                media,
            )
            .unwrap();
            for bit in 0..file.len() * 8 {
                let mut damaged = file.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                if let Ok(picture) = decode(&damaged, &limits) {
                    assert!(picture.rgb.len() <= 120_000);
                    assert_eq!(
                        picture.rgb.len() as u64,
                        u64::from(picture.width) * u64::from(picture.height) * 3
                    );
                }
            }
        }
    }

    #[test]
    fn a_size_is_told_without_pixels() {
        for media in [MediaType::Jpeg, MediaType::Png, MediaType::WebP] {
            let file = encode(&gradient(61, 47, Color::Rgb), media).unwrap();
            assert_eq!(size(&file), Some((61, 47)), "{media:?}");
            assert_eq!(size(&file[..15]), None, "{media:?}");
        }
    }

    #[test]
    fn a_lower_quality_makes_a_smaller_jpeg() {
        let picture = Picture {
            orientation: 6,
            ..gradient(128, 96, Color::Rgb)
        };
        let files = [20, 60, 90].map(|quality| encode_jpeg(&picture, quality).unwrap());
        assert!(files.is_sorted_by_key(Vec::len));
        let back = decode(&files[0], &limits()).unwrap();
        assert_eq!((back.width, back.height, back.orientation), (128, 96, 6));
    }

    #[test]
    fn a_small_jpeg_is_still_the_picture() {
        let picture = gradient(80, 64, Color::Rgb);
        let back = decode(&encode_jpeg(&picture, 75).unwrap(), &limits()).unwrap();
        let pairs = picture.rgb.iter().zip(&back.rgb);
        let off: u32 = pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        assert!(off < 4 * back.rgb.len() as u32, "{off}");
    }

    #[test]
    fn limits_come_before_pixels() {
        let limits = Limits {
            max_side: 40,
            ..Limits::default()
        };
        for media in [MediaType::Jpeg, MediaType::Png, MediaType::WebP] {
            let file = encode(&gradient(41, 2, Color::Rgb), media).unwrap();
            let error = decode(&file, &limits).unwrap_err();
            assert_eq!(error.to_string(), "picture is 41x2, limit 40 pixels a side");
        }
    }

    #[test]
    fn pixels_that_do_not_fit_the_size_are_an_error() {
        let mut picture = gradient(4, 4, Color::Rgb);
        picture.rgb.pop();
        let error = encode(&picture, MediaType::Png).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write 4x4 as image/png: 47 bytes of pixels"
        );
    }

    #[test]
    fn not_a_photo() {
        assert!(matches!(
            decode(b"hello", &limits()),
            Err(MediaError::Unknown)
        ));
        assert!(matches!(decode(b"", &limits()), Err(MediaError::Unknown)));
    }
}
