//! From a picture to its symbols, in strips of bounded height, so that memory does not grow with its
//! area beyond the pixels themselves.

use std::ops::Range;

use sidecod_wire::bundle;
use sidecod_wire::entropy::Symbols;
use sidecod_wire::media::Picture;

use super::{Codec, EncoderError};

/// Pixels of a strip. Its floats, and the patches that the engine copies out of them, take 12 bytes
/// each a pixel.
const STRIP_PIXELS: usize = 1 << 17;

impl Codec {
    /// Encodes and quantises a picture, strip by strip.
    pub(super) fn symbols(
        &self,
        picture: &Picture,
        quality: usize,
    ) -> Result<Symbols, EncoderError> {
        let manifest = &self.bundle.manifest;
        let stride = manifest.stride as usize;
        let halo = manifest.halo as usize;
        let (rows, columns) = manifest.latent_size(picture.width, picture.height);
        let mut symbols = Symbols::zeros(manifest.channels, rows, columns);
        let strip_rows = (STRIP_PIXELS / (columns * stride * stride)).max(2 * halo + 1);
        let strip = |start: usize| -> Result<Strip, EncoderError> {
            let end = (start + strip_rows).min(rows);
            let (top, bottom) = (start.saturating_sub(halo), (end + halo).min(rows));
            let (rows, width) = (top * stride..bottom * stride, columns * stride);
            let latent = self.encoder.run(rows.len(), width, &|planes| {
                write_planes(picture, rows.clone(), width, self.encoder.patch(), planes);
            })?;
            if latent.len() != manifest.channels * (bottom - top) * columns {
                return Err(EncoderError {
                    file: bundle::ENCODER,
                    reason: format!("gives {} values for a strip", latent.len()),
                });
            }
            Ok(Strip {
                start,
                symbols: manifest.quantize(quality, &latent, bottom - top, columns),
                rows: start - top..end - top,
            })
        };
        let count = rows.div_ceil(strip_rows);
        for strip in self.cores.share(count, |index| strip(index * strip_rows))? {
            symbols.put_rows(strip.start, &strip.symbols, strip.rows);
        }
        Ok(symbols)
    }
}

/// Symbols of some rows of a picture.
struct Strip {
    /// Its first row in the picture.
    start: usize,
    symbols: Symbols,
    /// Which of its rows count; the others are there for the convolutions' sake.
    rows: Range<usize>,
}

/// Writes planes between 0 and 1 of some rows: one for each channel, and for each pixel of a patch of so
/// many pixels on a side. Beyond its edges the picture repeats its last pixels.
fn write_planes(
    picture: &Picture,
    rows: Range<usize>,
    width: usize,
    patch: usize,
    planes: &mut [f32],
) {
    let (picture_width, last_row) = (picture.width as usize, picture.height as usize - 1);
    let columns = width / patch;
    let plane = rows.len() / patch * columns;
    let mut line = vec![[0; 3]; width];
    for (y, row) in rows.enumerate() {
        let start = row.min(last_row) * picture_width * 3;
        let source = picture.rgb[start..start + picture_width * 3].as_chunks().0;
        line[..picture_width].copy_from_slice(source);
        line[picture_width..].fill(source[picture_width - 1]);
        for channel in 0..3 {
            for x in 0..patch {
                let index = (channel * patch + y % patch) * patch + x;
                let target = &mut planes[index * plane + y / patch * columns..][..columns];
                let patches = line.as_flattened().chunks_exact(3 * patch);
                for (value, pixels) in target.iter_mut().zip(patches) {
                    *value = f32::from(pixels[3 * x + channel]) * (1.0 / 255.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sidecod_wire::limits::Limits;
    use sidecod_wire::media::Color;

    use super::*;

    #[test]
    fn a_picture_has_the_same_symbols_on_any_number_of_cores() {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/codecs/photo");
        let codec = Codec::open(&bundle, Limits::default()).unwrap();
        let (width, height) = (1100, 701);
        let picture = Picture {
            width,
            height,
            color: Color::Rgb,
            orientation: 1,
            rgb: (0..width * height * 3)
                .map(|at| (at.wrapping_mul(at) >> 9) as u8)
                .collect(),
        };
        let one = codec.symbols(&picture, 2).unwrap();
        let codec = codec.on(3);
        assert_eq!(codec.symbols(&picture, 2).unwrap(), one);
    }
}
