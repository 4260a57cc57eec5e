//! AVIF, by rav1e at its fastest.

use std::ops::Range;

use ravif::{BitDepth, Encoder, Img, RGB8};
use sidecod_wire::media::Picture;

/// rav1e's fastest: each step below takes up to twice the time.
const SPEED: u8 = 10;

/// The file of a picture that has pixels, with its orientation; else why there is none.
pub(super) fn write(picture: &Picture, quality: u8) -> Result<Vec<u8>, String> {
    let pixels: Vec<RGB8> = picture
        .rgb
        .chunks_exact(3)
        .map(|pixel| RGB8::new(pixel[0], pixel[1], pixel[2]))
        .collect();
    let sides = (picture.width as usize, picture.height as usize);
    let encoded = Encoder::new()
        .with_quality(quality.into())
        .with_speed(SPEED)
        .with_bit_depth(BitDepth::Eight)
        .with_num_threads(Some(1))
        .encode_rgb(Img::new(&pixels, sides.0, sides.1))
        .map_err(|error| error.to_string())?;
    match turns(picture.orientation) {
        [] => Ok(encoded.avif_file),
        turns => turned(&encoded.avif_file, turns).ok_or_else(|| "no place for a turn".to_owned()),
    }
}

/// A property that turns or mirrors the picture: its box's name, and what it holds.
type Turn = ([u8; 4], u8);
const ROTATION: [u8; 4] = *b"irot";
const MIRROR: [u8; 4] = *b"imir";

/// The properties that stand for an EXIF orientation, to be applied in this order: quarter turns
/// to the left, then top for bottom (0) or left for right (1). ISO/IEC 23008-12, 6.5.10 and 6.5.12.
fn turns(orientation: u8) -> &'static [Turn] {
    match orientation {
        2 => &[(MIRROR, 1)],
        3 => &[(ROTATION, 2)],
        4 => &[(MIRROR, 0)],
        5 => &[(ROTATION, 1), (MIRROR, 0)],
        6 => &[(ROTATION, 3)],
        7 => &[(ROTATION, 3), (MIRROR, 0)],
        8 => &[(ROTATION, 1)],
        _ => &[],
    }
}

/// A file of one picture with further properties of it. None if it is not of that form: one item
/// of one extent, its properties last of all that stands before the data.
fn turned(file: &[u8], turns: &[Turn]) -> Option<Vec<u8>> {
    const ESSENTIAL: u8 = 0x80;
    let all = 0..file.len();
    let [meta, data] = [*b"meta", *b"mdat"].map(|name| find(file, all.clone(), name));
    let (meta, data) = (meta?, data?);
    // `meta` and the two below that are full boxes: four bytes of version and flags.
    let within = meta.start + FULL..meta.end;
    let (iloc, iprp) = (
        find(file, within.clone(), *b"iloc")?,
        find(file, within, *b"iprp")?,
    );
    let within = iprp.start + BASIC..iprp.end;
    let (ipco, ipma) = (
        find(file, within.clone(), *b"ipco")?,
        find(file, within, *b"ipma")?,
    );
    let last = [ipma.end, iprp.end, meta.end] == [data.start; 3] && ipco.end == ipma.start;
    let used = usize::from(*file.get(ipma.start + FULL + 6)?);
    if !last || iloc.len() != FULL + 18 || ipma.len() != FULL + 7 + used {
        return None;
    }
    let known = children(file, ipco.start + BASIC..ipco.end).count();
    let (properties, marks): (Vec<_>, Vec<_>) = turns
        .iter()
        .zip(known + 1..)
        .map(|((name, value), at)| {
            let property = [&9_u32.to_be_bytes()[..], name, &[*value]].concat();
            (property, ESSENTIAL | at as u8)
        })
        .unzip();
    let properties = properties.concat();
    let mut out = [
        &file[..ipco.end],
        &properties,
        &file[ipma.start..ipma.end],
        &marks,
        &file[data.start..],
    ]
    .concat();
    let mut grow = |at: usize, by: usize| {
        let number = out.get_mut(at..at + 4)?;
        let value = u32::from_be_bytes(number.try_into().ok()?);
        number.copy_from_slice(&(value + by as u32).to_be_bytes());
        Some(())
    };
    let both = properties.len() + marks.len();
    grow(ipco.start, properties.len())?;
    grow(ipma.start + properties.len(), marks.len())?;
    grow(iprp.start, both)?;
    grow(meta.start, both)?;
    // Where the picture's data begin, counted from the file's first byte.
    grow(iloc.start + FULL + 10, both)?;
    out[ipma.start + properties.len() + FULL + 6] += marks.len() as u8;
    Some(out)
}

/// Bytes of size and name before what a box holds; with version and flags in a full one.
const BASIC: usize = 8;
const FULL: usize = 12;

/// The boxes in a part of a file, with their headers.
fn children(file: &[u8], mut part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    std::iter::from_fn(move || {
        let size = file.get(part.start..part.start + 4)?;
        let size = u32::from_be_bytes(size.try_into().ok()?) as usize;
        let found = part.start..part.start + size;
        (size >= BASIC && found.end <= part.end).then(|| {
            part.start = found.end;
            found
        })
    })
}

/// The first box of this name in a part of a file.
fn find(file: &[u8], part: Range<usize>, name: [u8; 4]) -> Option<Range<usize>> {
    children(file, part).find(|found| file[found.start + 4..found.start + 8] == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidecod_wire::media::Color;

    fn picture(width: u32, height: u32, orientation: u8) -> Picture {
        Picture {
            width,
            height,
            color: Color::Rgb,
            orientation,
            rgb: (0..width * height * 3)
                .map(|at| (at * 7 % 251) as u8)
                .collect(),
        }
    }

    #[test]
    fn every_small_size_is_written() {
        for (width, height) in [(1, 1), (1, 9), (17, 3), (64, 65)] {
            let file = write(&picture(width, height, 1), 50).unwrap();
            assert_eq!(&file[4..12], b"ftypavif", "{width}x{height}");
        }
    }

    #[test]
    fn a_turned_picture_has_the_same_data_and_says_its_turns() {
        let upright = write(&picture(40, 24, 1), 50).unwrap();
        let data = find(&upright, 0..upright.len(), *b"mdat").unwrap();
        for orientation in 2..=8 {
            let file = write(&picture(40, 24, orientation), 50).unwrap();
            let mine = find(&file, 0..file.len(), *b"mdat").unwrap();
            assert_eq!(file[mine.clone()], upright[data.clone()]);
            let meta = find(&file, 0..file.len(), *b"meta").unwrap();
            assert_eq!(meta.end, mine.start);
            let within = meta.start + FULL..meta.end;
            let iloc = find(&file, within.clone(), *b"iloc").unwrap();
            let begins = &file[iloc.start + FULL + 10..iloc.start + FULL + 14];
            assert_eq!(begins, ((mine.start + BASIC) as u32).to_be_bytes());
            let iprp = find(&file, within, *b"iprp").unwrap();
            let ipco = find(&file, iprp.start + BASIC..iprp.end, *b"ipco").unwrap();
            for (name, value) in turns(orientation) {
                let property = find(&file, ipco.start + BASIC..ipco.end, *name).unwrap();
                assert_eq!(file[property.end - 1], *value);
            }
        }
    }
}
