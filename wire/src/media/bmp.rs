//! BMP: written only, with 24 bits a pixel and no compression.

use super::Picture;

/// File header and `BITMAPINFOHEADER`.
const HEADERS: u32 = 14 + 40;
const BITS: u16 = 24;

pub(super) fn encode(picture: &Picture) -> Result<Vec<u8>, String> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    // Rows are filled up to a multiple of four bytes.
    let row = (width * 3).next_multiple_of(4);
    let bytes = u32::try_from(row * height).ok();
    let size = bytes.and_then(|bytes| bytes.checked_add(HEADERS));
    let (Some(bytes), Some(size)) = (bytes, size) else {
        return Err("more than 4 GiB".to_owned());
    };
    let mut file = Vec::with_capacity(size as usize);
    file.extend(b"BM");
    for value in [size, 0, HEADERS, 40, picture.width, picture.height] {
        file.extend(value.to_le_bytes());
    }
    // One plane.
    file.extend(1_u16.to_le_bytes());
    file.extend(BITS.to_le_bytes());
    for value in [0, bytes, 0, 0, 0, 0] {
        file.extend(value.to_le_bytes());
    }
    // The lowest row stands first, blue before green before red.
    for line in picture.rgb.chunks_exact(width * 3).rev() {
        file.extend(
            line.chunks_exact(3)
                .flat_map(|rgb| [rgb[2], rgb[1], rgb[0]]),
        );
        file.resize(file.len() + row - width * 3, 0);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use crate::media::{Color, MediaType, Picture, encode};

    #[test]
    fn rows_stand_upside_down_and_are_filled_up() {
        let picture = Picture {
            width: 1,
            height: 2,
            color: Color::Rgb,
            orientation: 1,
            rgb: vec![1, 2, 3, 4, 5, 6],
        };
        let file = encode(&picture, MediaType::Bmp).unwrap();
        assert_eq!(file.len(), 54 + 8);
        assert_eq!(u32::from_le_bytes(file[2..6].try_into().unwrap()), 62);
        assert_eq!(file[54..], [6, 5, 4, 0, 3, 2, 1, 0]);
    }
}
