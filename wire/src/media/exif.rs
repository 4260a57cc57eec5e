//! The one EXIF tag that changes what a picture shows: its orientation.

use std::io::Cursor;

use exif::{In, Reader, Tag};

/// The orientation, 1 to 8, that a JPEG, PNG or WebP file declares; 1 where it declares none.
pub(super) fn orientation(file: &[u8]) -> u8 {
    Reader::new()
        .read_from_container(&mut Cursor::new(file))
        .ok()
        .and_then(|exif| {
            exif.get_field(Tag::Orientation, In::PRIMARY)?
                .value
                .get_uint(0)
        })
        .and_then(|value| u8::try_from(value).ok())
        .filter(|value| (1..=8).contains(value))
        .unwrap_or(1)
}

/// A TIFF block with the orientation and nothing else (EXIF 2.3, section 4.5).
pub(super) fn block(orientation: u8) -> Vec<u8> {
    let mut tiff = Vec::with_capacity(26);
    tiff.extend_from_slice(b"MM\0\x2a\0\0\0\x08"); // big-endian, first directory at byte 8
    tiff.extend_from_slice(&[0, 1]); // one entry
    tiff.extend_from_slice(&[0x01, 0x12, 0, 3, 0, 0, 0, 1]); // orientation, one 16-bit number
    tiff.extend_from_slice(&[0, orientation, 0, 0]);
    tiff.extend_from_slice(&[0; 4]); // no further directory
    tiff
}
