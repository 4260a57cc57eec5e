//! The frame: what replaces the body of a request on the way from the device to the edge.
//!
//! ```text
//! u8       version, 2
//! 8 bytes  first bytes of the bundle's digest
//! u8       quality: index into the bundle's list
//! string   content-type of the original request (length 0: it had none)
//! bytes    skeleton: the original body with the inputs and their lengths cut out
//! varint   where in the skeleton the JSON ends whose length a header tells, plus 1; 0: nowhere
//! varint   number of slots, then for each, in the order of the body:
//!   varint   offset in the skeleton where the input belongs
//!   u8       media type (low 4 bits; 8: a tensor, 9: a sound), grey (bit 4)
//!   file:    u8     text: 0 raw, else base64 (bit 0), url-safe (1), padded (2), escaped (3)
//!   tensor:  u8     type of the numbers (bits 0 and 1), rows first (2), notation (3 and 4)
//!            u8     values: index of those that have a name; 255: seven f32 follow
//!   a picture, whether file or tensor:
//!     u8       EXIF orientation, 1 to 8
//!     varint   width in pixels
//!     varint   height in pixels
//!     varint   longest side at which it was coded; 0: as it is
//!     bytes    code
//!   a sound:
//!     u8       text, as of a file
//!     bytes    what stands in the file before the samples
//!     bytes    what stands behind them
//!     u8       codec: 0 FLAC, 1 Opus, 2 samples as they are
//!     u8       channels, 1 to 8
//!     u8       bytes of a sample: 2 or 3; 4, a floating-point number
//!     varint   samples of a channel in a second
//!     varint   samples of each channel
//!     bytes    code
//! varint   number of lengths, then for each, in the order of the body:
//!   varint   offset in the skeleton where the number belongs
//!   varint   slots that stand before it
//!   u8       notation: 0 decimal, 1 four bytes, 2 four bytes big-endian, 3 varint
//!   varint   index of the first slot that it counts
//!   varint   number of slots that it counts
//!   varint   bytes that it counts beside them, without those of lengths in it that are varints
//! u32      CRC-32C of everything before it, little-endian
//! ```
//!
//! `varint` is LEB128 of at most 32 bits; `string` and `bytes` are a varint length and as many bytes.
//! A frame with one slot and an `image/jpeg` content-type costs about 35 bytes beside the code and
//! the skeleton.

mod read;
mod write;

use crate::limits::TooLarge;
use crate::media::{self, Color};
use crate::slot::{Form, Skeleton, Text};
use crate::sound::{Sound, SoundError};

/// Media type of a request whose body is a [`Frame`].
pub const CONTENT_TYPE: &str = "application/vnd.sidecod.frame";

const VERSION: u8 = 2;
const GREY: u8 = 0x10;
/// Kind of a slot that is a tensor.
const TENSOR: u8 = 8;
/// Kind of a slot that is a sound.
const SOUND: u8 = 9;
/// Values without a name.
const OWN_VALUES: u8 = 255;

/// A request body whose inputs are replaced by codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// First bytes of the digest of the bundle that the codes were made with.
    pub bundle: [u8; 8],
    /// Index into the bundle's qualities.
    pub quality: u8,
    /// The content-type of the original request.
    pub content_type: Option<String>,
    /// The original body without the inputs; it has an offset for each slot.
    pub skeleton: Skeleton,
    /// The inputs, in the order of the body.
    pub slots: Vec<Slot>,
}

/// One input of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Slot {
    /// A photo's file, or a tensor.
    Picture(PictureSlot),
    /// A sound's file.
    Sound {
        /// How its bytes stand in the body.
        text: Text,
        /// The file with its samples coded.
        sound: Sound,
    },
}

impl Slot {
    /// How it is written in the body that the model server gets.
    #[must_use]
    pub fn form(&self) -> Form {
        match self {
            Self::Picture(picture) => picture.form,
            Self::Sound { text, .. } => Form::Sound(*text),
        }
    }

    /// Bytes of its code.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        match self {
            Self::Picture(picture) => &picture.code,
            Self::Sound { sound, .. } => sound.code.bytes(),
        }
    }
}

/// An input that is a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureSlot {
    /// How it is written in the body that the model server gets.
    pub form: Form,
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
    /// Whether the original was grey.
    pub color: Color,
    /// EXIF orientation of the original, 1 to 8; 1 is upright.
    pub orientation: u8,
    /// Pixels that the longer side had when the picture was coded, if it had more; 0: no bound.
    pub max_side: u32,
    /// Entropy-coded symbols.
    pub code: Vec<u8>,
}

impl PictureSlot {
    /// Width and height at which the picture was coded.
    #[must_use]
    pub fn coded_size(&self) -> (u32, u32) {
        media::coded_size(self.width, self.height, self.max_side)
    }
}

/// Why bytes are no acceptable frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end too early.
    #[error("frame ends inside its {0}")]
    Truncated(&'static str),
    /// Bytes are left behind the last slot.
    #[error("frame has {0} bytes after its last slot")]
    Trailing(usize),
    /// The checksum does not match.
    #[error("frame is damaged: its CRC-32C does not match")]
    Checksum,
    /// A version that this build does not read.
    #[error("frame version {0}, this build reads version {VERSION}")]
    Version(u8),
    /// A field has a value that it cannot have.
    #[error("frame {field} is {value}, which is not valid")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A field is larger than the limits allow.
    #[error("frame {field} is {value}, limit {limit}")]
    Limit {
        /// The field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// The limit.
        limit: usize,
    },
    /// A picture is larger than the limits allow.
    #[error("slot {slot}: {source}")]
    Picture {
        /// Index of the slot, from 0.
        slot: usize,
        /// The size and the limit.
        source: TooLarge,
    },
    /// A sound is longer than the limits allow.
    #[error("slot {slot}: {source}")]
    Sound {
        /// Index of the slot, from 0.
        slot: usize,
        /// The length and the limit.
        source: SoundError,
    },
}

#[cfg(test)]
mod tests;
