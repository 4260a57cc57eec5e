//! WebP, by libwebp.

use sidecod_wire::media::{self, Picture};

/// Effort, 0 to 6. Half of the time of the default 4 for a few per cent more bytes.
const METHOD: i32 = 2;
/// Longest side in pixels.
const MAX_SIDE: u32 = 16_383;

/// The file of a picture that has pixels, with its orientation; else why there is none.
pub(super) fn write(picture: &Picture, quality: u8) -> Result<Vec<u8>, String> {
    let &Picture { width, height, .. } = picture;
    if width.max(height) > MAX_SIDE {
        return Err(format!("a WebP side has at most {MAX_SIDE} pixels"));
    }
    let mut config = webp::WebPConfig::new().map_err(|()| "no configuration")?;
    config.quality = quality.into();
    config.method = METHOD;
    let file = webp::Encoder::from_rgb(&picture.rgb, width, height)
        .encode_advanced(&config)
        .map_err(|error| format!("{error:?}"))?
        .to_vec();
    Ok(match media::exif_block(picture.orientation) {
        None => file,
        Some(exif) => with_exif(&file, &exif, width, height),
    })
}

/// A simple WebP file as an extended one with an EXIF block (RFC 9649, section 2.7).
fn with_exif(file: &[u8], exif: &[u8], width: u32, height: u32) -> Vec<u8> {
    const HAS_EXIF: u8 = 0x08;
    const RIFF_HEADER: usize = 12;
    let mut chunks = b"WEBPVP8X\x0a\0\0\0".to_vec();
    chunks.extend([HAS_EXIF, 0, 0, 0]);
    chunks.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
    chunks.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
    chunks.extend_from_slice(&file[RIFF_HEADER..]);
    chunks.extend_from_slice(b"EXIF");
    chunks.extend_from_slice(&(exif.len() as u32).to_le_bytes());
    chunks.extend_from_slice(exif);
    if exif.len() % 2 == 1 {
        chunks.push(0);
    }
    let length = (chunks.len() as u32).to_le_bytes();
    [b"RIFF", &length[..], &chunks].concat()
}
