//! JPEG: zune-jpeg to read, jpeg-encoder to write.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{Color, Decoded, MediaError, Picture, repeat_grey};
use crate::limits::Limits;

const MEDIA: &str = "image/jpeg";
/// Close to the pixels that came out of the decoder, at a size that a local link does not notice.
const QUALITY: u8 = 95;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, MediaError> {
    let header = Header::read(bytes)
        .ok_or_else(|| damaged("it has no frame header, or ends before its end-of-image marker"))?;
    limits.check_picture(header.width.into(), header.height.into())?;
    let (color, colorspace) = match header.components {
        1 => (Color::Gray, ColorSpace::Luma),
        3 => (Color::Rgb, ColorSpace::RGB),
        _ => {
            return Err(MediaError::Unsupported {
                media: MEDIA,
                what: "CMYK",
            });
        }
    };
    if header.bits != 8 {
        return Err(MediaError::Unsupported {
            media: MEDIA,
            what: "a depth other than 8 bits",
        });
    }
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(header.width.into())
        .set_max_height(header.height.into())
        .jpeg_set_out_colorspace(colorspace);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let samples = decoder
        .decode()
        .map_err(|error| damaged(&error.to_string()))?;
    let (width, height) = (u32::from(header.width), u32::from(header.height));
    if decoder.dimensions() != Some((width as usize, height as usize)) {
        return Err(damaged("its size is not the one that its header says"));
    }
    let rgb = match color {
        Color::Rgb => samples,
        Color::Gray => repeat_grey(&samples),
    };
    Ok((width, height, color, rgb))
}

/// The size that its header says.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = Header::read(bytes)?;
    Some((header.width.into(), header.height.into()))
}

/// Without a quality close to the pixels; with one as small as the quality allows.
pub(super) fn encode(
    picture: &Picture,
    samples: &[u8],
    exif: Option<&[u8]>,
    quality: Option<u8>,
) -> Result<Vec<u8>, String> {
    let (Ok(width), Ok(height)) = (u16::try_from(picture.width), u16::try_from(picture.height))
    else {
        return Err("a JPEG side has at most 65535 pixels".to_owned());
    };
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality.unwrap_or(QUALITY).clamp(1, 100));
    if quality.is_some() {
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        encoder.set_optimized_huffman_tables(true);
    } else {
        encoder.set_sampling_factor(SamplingFactor::F_1_1);
    }
    let color = match picture.color {
        Color::Rgb => ColorType::Rgb,
        Color::Gray => ColorType::Luma,
    };
    exif.map_or(Ok(()), |exif| encoder.add_exif_metadata(exif))
        .and_then(|()| encoder.encode(samples, width, height, color))
        .map_err(|error| error.to_string())?;
    Ok(file)
}

fn damaged(reason: &str) -> MediaError {
    MediaError::Damaged {
        media: MEDIA,
        reason: reason.to_owned(),
    }
}

/// What the first frame header says (ITU-T T.81, section B.2.2).
struct Header {
    bits: u8,
    width: u16,
    height: u16,
    components: u8,
}

impl Header {
    /// Walks the markers from the start of the file to its end-of-image marker.
    ///
    /// The decoder fills up a picture whose data end early; the model server's decoder may refuse
    /// it. `None` for a file without that marker keeps the two from differing.
    fn read(bytes: &[u8]) -> Option<Self> {
        const END_OF_IMAGE: u8 = 0xd9;
        const START_OF_SCAN: u8 = 0xda;
        let mut header = None;
        let mut at = 2;
        loop {
            while *bytes.get(at)? != 0xff {
                at += 1;
            }
            while *bytes.get(at)? == 0xff {
                at += 1;
            }
            let marker = bytes[at];
            at += 1;
            match marker {
                END_OF_IMAGE => return header,
                // A stuffed byte of a scan, and markers without a segment.
                0x00 | 0x01 | 0xd0..=0xd8 => {}
                _ => {
                    let segment = bytes.get(at..)?;
                    let length = usize::from(u16::from_be_bytes(*segment.first_chunk()?));
                    // SOF0 to SOF15; C4, C8 and CC are other things.
                    if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
                        let [_, _, bits, h1, h0, w1, w0, components] = *segment.first_chunk()?;
                        header.get_or_insert(Self {
                            bits,
                            width: u16::from_be_bytes([w1, w0]),
                            height: u16::from_be_bytes([h1, h0]),
                            components,
                        });
                    }
                    if marker == START_OF_SCAN && header.is_none() {
                        return None;
                    }
                    at += length.max(2);
                }
            }
        }
    }
}
