//! WebP: image-webp both ways; it writes without loss.

use std::io::Cursor;

use image_webp::{ColorType, WebPDecoder, WebPEncoder};

use super::{Color, Decoded, MediaError, Picture};
use crate::limits::Limits;

const MEDIA: &str = "image/webp";
/// Room beside the pixels for what the decoder holds of the file.
const DECODER_MEMORY: usize = 64 << 20;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, MediaError> {
    // The decoder fills up a picture whose data end early; the model server's may refuse it.
    let declared = bytes[4..]
        .first_chunk()
        .map_or(u32::MAX, |size| u32::from_le_bytes(*size));
    if bytes.len() as u64 - 8 < u64::from(declared) {
        return Err(MediaError::Damaged {
            media: MEDIA,
            reason: format!("{} bytes of {}", bytes.len(), u64::from(declared) + 8),
        });
    }
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    limits.check_picture(width, height)?;
    if decoder.is_animated() {
        return Err(MediaError::Unsupported {
            media: MEDIA,
            what: "animation",
        });
    }
    if decoder.has_alpha() {
        return Err(MediaError::Unsupported {
            media: MEDIA,
            what: "transparency",
        });
    }
    decoder.set_memory_limit(DECODER_MEMORY);
    let size = decoder
        .output_buffer_size()
        .ok_or(MediaError::Unsupported {
            media: MEDIA,
            what: "a picture of this size",
        })?;
    let mut rgb = vec![0; size];
    decoder.read_image(&mut rgb).map_err(damaged)?;
    Ok((width, height, Color::Rgb, rgb))
}

/// The size that its header says.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let decoder = WebPDecoder::new(Cursor::new(bytes)).ok()?;
    Some(decoder.dimensions())
}

pub(super) fn encode(
    picture: &Picture,
    samples: &[u8],
    exif: Option<Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let color = match picture.color {
        Color::Rgb => ColorType::Rgb8,
        Color::Gray => ColorType::L8,
    };
    let mut file = Vec::new();
    let mut encoder = WebPEncoder::new(&mut file);
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif);
    }
    encoder
        .encode(samples, picture.width, picture.height, color)
        .map_err(|error| error.to_string())?;
    Ok(file)
}

#[allow(clippy::needless_pass_by_value)] // map_err hands it over
fn damaged(error: image_webp::DecodingError) -> MediaError {
    MediaError::Damaged {
        media: MEDIA,
        reason: error.to_string(),
    }
}
