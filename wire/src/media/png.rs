//! PNG: the png crate both ways.

use std::borrow::Cow;
use std::io::Cursor;

use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Info, Transformations};

use super::{Color, Decoded, MediaError, Picture, repeat_grey};
use crate::limits::Limits;

const MEDIA: &str = "image/png";

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, MediaError> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    // Palettes become colours, 1 to 4 bits become 8.
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = header.size();
    limits.check_picture(width, height)?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    if reader.info().is_animated() {
        return Err(MediaError::Unsupported {
            media: MEDIA,
            what: "animation",
        });
    }
    let (color, depth) = reader.output_color_type();
    if depth != BitDepth::Eight {
        return Err(MediaError::Unsupported {
            media: MEDIA,
            what: "a depth of 16 bits",
        });
    }
    let color = match color {
        ColorType::Rgb => Color::Rgb,
        ColorType::Grayscale => Color::Gray,
        _ => {
            return Err(MediaError::Unsupported {
                media: MEDIA,
                what: "transparency",
            });
        }
    };
    let size = reader.output_buffer_size().ok_or(MediaError::Unsupported {
        media: MEDIA,
        what: "a picture of this size",
    })?;
    let mut samples = vec![0; size];
    let frame = reader.next_frame(&mut samples).map_err(damaged)?;
    samples.truncate(frame.buffer_size());
    let rgb = match color {
        Color::Rgb => samples,
        Color::Gray => repeat_grey(&samples),
    };
    Ok((width, height, color, rgb))
}

/// The size that its header says.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    Some(decoder.read_header_info().ok()?.size())
}

pub(super) fn encode(
    picture: &Picture,
    samples: &[u8],
    exif: Option<Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let mut info = Info::with_size(picture.width, picture.height);
    info.color_type = match picture.color {
        Color::Rgb => ColorType::Rgb,
        Color::Gray => ColorType::Grayscale,
    };
    info.bit_depth = BitDepth::Eight;
    info.exif_metadata = exif.map(Cow::Owned);
    let mut file = Vec::new();
    let write = |file: &mut Vec<u8>| {
        let mut encoder = Encoder::with_info(file, info)?;
        encoder.set_compression(Compression::Fastest);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(samples)?;
        writer.finish()
    };
    write(&mut file).map_err(|error| error.to_string())?;
    Ok(file)
}

#[allow(clippy::needless_pass_by_value)] // map_err hands it over
fn damaged(error: png::DecodingError) -> MediaError {
    MediaError::Damaged {
        media: MEDIA,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(
        color: ColorType,
        depth: BitDepth,
        palette: Option<&[u8]>,
        trns: Option<&[u8]>,
        data: &[u8],
    ) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, 2, 2);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        if let Some(trns) = trns {
            encoder.set_trns(trns);
        }
        encoder
            .write_header()
            .unwrap()
            .write_image_data(data)
            .unwrap();
        file
    }

    #[test]
    fn palette_and_low_depths_become_eight_bits() {
        let palette = [255, 0, 0, 0, 255, 0];
        let indexed = file(
            ColorType::Indexed,
            BitDepth::One,
            Some(&palette),
            None,
            &[0b0100_0000, 0b1000_0000],
        );
        let (width, height, color, rgb) = decode(&indexed, &Limits::default()).unwrap();
        assert_eq!((width, height, color), (2, 2, Color::Rgb));
        assert_eq!(rgb, [255, 0, 0, 0, 255, 0, 0, 255, 0, 255, 0, 0]);

        let grey = file(
            ColorType::Grayscale,
            BitDepth::Four,
            None,
            None,
            &[0x0f, 0xf0],
        );
        let (_, _, color, rgb) = decode(&grey, &Limits::default()).unwrap();
        assert_eq!(color, Color::Gray);
        assert_eq!(rgb, [0, 0, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0]);
    }

    #[test]
    fn what_the_codec_would_lose_is_unsupported() {
        let palette = [255, 0, 0, 0, 255, 0];
        for file in [
            file(ColorType::Rgba, BitDepth::Eight, None, None, &[9; 16]),
            file(
                ColorType::GrayscaleAlpha,
                BitDepth::Eight,
                None,
                None,
                &[9; 8],
            ),
            file(ColorType::Rgb, BitDepth::Sixteen, None, None, &[9; 24]),
            file(ColorType::Grayscale, BitDepth::Sixteen, None, None, &[9; 8]),
            file(
                ColorType::Indexed,
                BitDepth::Eight,
                Some(&palette),
                Some(&[0, 255]),
                &[0, 1, 1, 0],
            ),
        ] {
            assert!(matches!(
                decode(&file, &Limits::default()),
                Err(MediaError::Unsupported { .. })
            ));
        }
    }
}
