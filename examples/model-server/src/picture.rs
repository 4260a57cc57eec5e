//! From the bytes of a picture file to the model's input.
//!
//! Any JPEG (also grey and CMYK), PNG (also palette, alpha and 16 bits) or WebP. The EXIF
//! orientation is honoured, alpha is dropped.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage};

/// Side of the model's input in pixels.
pub const SIDE: usize = 224;
/// The short side of a picture is scaled to this many pixels before the crop.
const SHORT_SIDE: u32 = 256;

/// Bounds on a picture, checked before its pixels are decoded.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Width times height.
    pub pixels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pixels: 50_000_000 }
    }
}

/// Why a body is not a picture that can be classified.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// Its first bytes are of no format that is read here.
    #[error("not a JPEG, PNG or WebP picture")]
    Unknown,
    /// It ends too early, or is not what its format says.
    #[error("cannot read the picture: {0}")]
    Damaged(String),
    /// It is over a limit.
    #[error("the picture is {width}x{height}, limit is {limit} pixels")]
    TooLarge {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Most pixels that a picture may have.
        limit: u64,
    },
}

impl From<ImageError> for PictureError {
    fn from(error: ImageError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// The model's input: 3 x 224 x 224, plane by plane in the order red, green, blue, each value
/// (0..=255 - 127) / 128.
pub struct Input(Vec<f32>);

impl Input {
    /// Decodes a picture, turns it upright, scales its short side to 256 pixels (bilinear,
    /// antialiased) and takes the 224x224 pixels in its middle. Bytes that are no picture, but as
    /// many as the input's values have as little-endian 32-bit floats, are taken as those.
    pub fn read(bytes: &[u8], limits: Limits) -> Result<Self, PictureError> {
        if bytes.len() == 3 * SIDE * SIDE * size_of::<f32>() && image::guess_format(bytes).is_err()
        {
            let numbers = bytes.chunks_exact(size_of::<f32>());
            let value = |number: &[u8]| number.try_into().map_or(0.0, f32::from_le_bytes);
            return Ok(Self(numbers.map(value).collect()));
        }
        let picture = decode(bytes, limits)?;
        let (width, height) = picture.dimensions();
        // The square in the middle holds all of the crop. Scaling only it bounds the work: a strip
        // of 10000x1 would become 2.5 million pixels wide.
        let short = width.min(height);
        let (left, top) = ((width - short) / 2, (height - short) / 2);
        let square = imageops::crop_imm(&picture, left, top, short, short);
        let scaled = imageops::resize(&*square, SHORT_SIDE, SHORT_SIDE, FilterType::Triangle);
        let side = SIDE as u32;
        let margin = (SHORT_SIDE - side) / 2;
        let crop = imageops::crop_imm(&scaled, margin, margin, side, side).to_image();
        let values = (0..3)
            .flat_map(|channel| crop.pixels().map(move |pixel| pixel.0[channel]))
            .map(|value| (f32::from(value) - 127.0) / 128.0)
            .collect();
        Ok(Self(values))
    }

    /// The values, 3 x 224 x 224.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.0
    }
}

/// Decodes to upright RGB.
fn decode(bytes: &[u8], limits: Limits) -> Result<RgbImage, PictureError> {
    let format = image::guess_format(bytes).map_err(|_| PictureError::Unknown)?;
    match format {
        ImageFormat::Jpeg if !ends(bytes) => {
            return Err(PictureError::Damaged("it ends before its last scan".into()));
        }
        ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP => {}
        _ => return Err(PictureError::Unknown),
    }
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels {
        let limit = limits.pixels;
        return Err(PictureError::TooLarge {
            width,
            height,
            limit,
        });
    }
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// Whether the end marker (FF D9) stands somewhere after the start of the first scan.
///
/// The decoder fills up what is missing without a word; a classifier should not guess at half a
/// photo. Segments before the scan are stepped over by their lengths, since an EXIF thumbnail has an
/// end marker of its own, and what follows the end marker (phones put a film there) does not count.
/// Inside a scan a marker cannot appear by chance (ITU-T T.81, B.1.1.5).
fn ends(jpeg: &[u8]) -> bool {
    let mut rest = jpeg.get(2..).unwrap_or_default();
    while let [0xff, marker, high, low, ..] = *rest {
        if marker == 0xff {
            rest = &rest[1..];
            continue;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        rest = rest.get(2 + length..).unwrap_or_default();
        if marker == 0xda {
            return rest.windows(2).any(|pair| pair == [0xff, 0xd9]);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use image::{ExtendedColorType, ImageEncoder, Luma, Rgb, Rgba};

    use super::*;

    fn photo(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../photos");
        std::fs::read(format!("{folder}/{name}")).unwrap()
    }

    fn file(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn read(bytes: &[u8]) -> Result<Input, PictureError> {
        Input::read(bytes, Limits::default())
    }

    /// Mean of one colour plane, back in 0..=255.
    fn mean(input: &Input, channel: usize) -> f32 {
        let plane = &input.values()[channel * SIDE * SIDE..][..SIDE * SIDE];
        plane.iter().sum::<f32>() / (SIDE * SIDE) as f32 * 128.0 + 127.0
    }

    fn is_colour(input: &Input, colour: [f32; 3]) {
        for (channel, expected) in colour.into_iter().enumerate() {
            let mean = mean(input, channel);
            assert!((mean - expected).abs() < 3.0, "{channel}: {mean}");
        }
    }

    #[test]
    fn every_kind_of_pixel_becomes_rgb() {
        let rgb = DynamicImage::from(RgbImage::from_pixel(40, 30, Rgb([200, 100, 50])));
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            is_colour(&read(&file(&rgb, format)).unwrap(), [200.0, 100.0, 50.0]);
        }
        let wide = DynamicImage::from(image::ImageBuffer::from_pixel(
            9,
            9,
            Rgb([200_u16 * 257, 100 * 257, 50 * 257]),
        ));
        is_colour(
            &read(&file(&wide, ImageFormat::Png)).unwrap(),
            [200.0, 100.0, 50.0],
        );
        let clear =
            DynamicImage::from(image::RgbaImage::from_pixel(9, 9, Rgba([200, 100, 50, 10])));
        is_colour(
            &read(&file(&clear, ImageFormat::Png)).unwrap(),
            [200.0, 100.0, 50.0],
        );
        let grey = DynamicImage::from(image::GrayImage::from_pixel(9, 9, Luma([80])));
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            is_colour(&read(&file(&grey, format)).unwrap(), [80.0; 3]);
        }
    }

    #[test]
    fn cmyk_and_palettes_become_rgb() {
        // Both written by Pillow; what it reads from them itself.
        let cmyk = read(include_bytes!("../tests/cmyk.jpg")).unwrap();
        is_colour(&cmyk, [207.0, 119.0, 66.0]);
        let palette = read(include_bytes!("../tests/palette.png")).unwrap();
        is_colour(&palette, [200.0, 100.0, 50.0]);
    }

    #[test]
    fn exif_orientation_turns_the_picture() {
        // Left half black, right half white; orientation 6 is shown turned to the right.
        let picture = RgbImage::from_fn(64, 64, |x, _| Rgb([if x < 32 { 0 } else { 255 }; 3]));
        let exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut bytes);
        encoder.set_exif_metadata(exif.to_vec()).unwrap();
        encoder
            .write_image(picture.as_raw(), 64, 64, ExtendedColorType::Rgb8)
            .unwrap();
        let input = read(&bytes).unwrap();
        let row = |y: usize| input.values()[y * SIDE..][..SIDE].iter().sum::<f32>() / SIDE as f32;
        assert!(row(0) < -0.9 && row(SIDE - 1) > 0.9);
    }

    #[test]
    fn sizes_from_one_pixel_up_are_read() {
        for (width, height) in [(1, 1), (1, 300), (16384, 1), (223, 500), (4000, 3000)] {
            let picture = DynamicImage::from(RgbImage::new(width, height));
            assert!(read(&file(&picture, ImageFormat::Png)).is_ok());
        }
    }

    #[test]
    fn too_large_is_refused_before_decoding() {
        let limits = Limits { pixels: 99 };
        let large = file(&DynamicImage::from(RgbImage::new(10, 10)), ImageFormat::Png);
        let error = Input::read(&large, limits).err().unwrap();
        assert_eq!(
            error.to_string(),
            "the picture is 10x10, limit is 99 pixels"
        );
    }

    #[test]
    fn the_middle_is_taken() {
        let strip = RgbImage::from_fn(9001, 1, |x, _| Rgb([if x == 4500 { 200 } else { 0 }; 3]));
        let input = read(&file(&DynamicImage::from(strip), ImageFormat::Png)).unwrap();
        is_colour(&input, [200.0; 3]);
    }

    #[test]
    fn what_follows_the_end_of_a_jpeg_does_not_count() {
        let film = [&[0xff, 0xda][..], &[0; 5000]].concat();
        assert!(read(&[photo("goldfish.jpg"), film].concat()).is_ok());
    }

    #[test]
    fn the_input_itself_is_taken() {
        let input = read(&photo("goldfish.jpg")).unwrap();
        let bytes: Vec<u8> = input
            .values()
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        assert_eq!(read(&bytes).unwrap().values(), input.values());
        assert!(read(&bytes[4..]).is_err());
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(matches!(read(b""), Err(PictureError::Unknown)));
        assert!(matches!(read(b"hello, world"), Err(PictureError::Unknown)));
        assert!(matches!(read(b"GIF89a-------"), Err(PictureError::Unknown)));
    }

    #[test]
    fn a_truncated_file_is_refused_wherever_it_ends() {
        let jpeg = photo("goldfish.jpg");
        let picture = image::load_from_memory(&jpeg).unwrap();
        let png = file(&picture, ImageFormat::Png);
        let webp = file(&picture, ImageFormat::WebP);
        for whole in [jpeg, png, webp] {
            assert!(read(&whole).is_ok());
            for part in 1..40 {
                let cut = &whole[..whole.len() * part / 40];
                assert!(read(cut).is_err(), "{part}/40 of {}", whole.len());
            }
        }
    }
}
