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
//!     u8       codec: 0 FLAC, 1 Opus
//!     u8       channels, 1 to 8
//!     u8       bytes of a sample, 2 or 3
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

use crate::limits::{Limits, TooLarge};
use crate::media::{self, Color, MediaType};
use crate::protobuf;
use crate::slot::{Form, Length, Notation, Skeleton, Text};
use crate::sound::{Code, Samples, Sound, SoundError};
use crate::tensor::{self, Element, Layout, Tensor, Values};

/// Media type of a request whose body is a [`Frame`].
pub const CONTENT_TYPE: &str = "application/vnd.sidecod.frame";

const VERSION: u8 = 2;
const CRC_BYTES: usize = 4;
/// A content-type longer than this is no content-type.
const MAX_CONTENT_TYPE: usize = 1024;
const GREY: u8 = 0x10;
/// Kind of a slot that is a tensor.
const TENSOR: u8 = 8;
/// Kind of a slot that is a sound.
const SOUND: u8 = 9;
/// Values without a name.
const OWN_VALUES: u8 = 255;
/// Lengths that one slot may have: its own, and those of what it is in, of which gRPC has three.
const LENGTHS_PER_SLOT: usize = 4;
/// Bytes of a length at most, where their number does not depend on it.
const LENGTH_BYTES: usize = 4;

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

impl Frame {
    /// The frame as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let codes: usize = self.slots.iter().map(|slot| slot.code().len() + 24).sum();
        let mut out = Vec::with_capacity(64 + self.skeleton.bytes.len() + codes);
        out.push(VERSION);
        out.extend_from_slice(&self.bundle);
        out.push(self.quality);
        put_bytes(
            &mut out,
            self.content_type.as_deref().unwrap_or_default().as_bytes(),
        );
        put_bytes(&mut out, &self.skeleton.bytes);
        put_varint(&mut out, self.skeleton.json_end.map_or(0, |end| end + 1));
        put_varint(&mut out, self.slots.len());
        for (slot, offset) in self.slots.iter().zip(&self.skeleton.offsets) {
            put_varint(&mut out, *offset);
            match slot {
                Slot::Picture(picture) => put_picture(&mut out, picture),
                Slot::Sound { text, sound } => put_sound(&mut out, *text, sound),
            }
        }
        put_varint(&mut out, self.skeleton.lengths.len());
        for length in &self.skeleton.lengths {
            put_varint(&mut out, length.offset);
            put_varint(&mut out, length.after);
            out.push(match length.notation {
                Notation::Decimal => 0,
                Notation::U32 => 1,
                Notation::U32BigEndian => 2,
                Notation::Varint => 3,
            });
            put_varint(&mut out, length.slots.start);
            put_varint(&mut out, length.slots.len());
            put_varint(&mut out, length.plus);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a frame. Nothing is allocated for a field before its size has been checked against
    /// `limits` and against the bytes that are there.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are truncated, damaged, of another version or over a limit.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, FrameError> {
        let Some((body, crc)) = bytes.split_last_chunk::<CRC_BYTES>() else {
            return Err(FrameError::Truncated("checksum"));
        };
        match body.first() {
            None => return Err(FrameError::Truncated("version")),
            Some(&VERSION) => {}
            Some(&other) => return Err(FrameError::Version(other)),
        }
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(FrameError::Checksum);
        }
        let mut reader = Reader { rest: &body[1..] };
        let bundle = reader.array::<8>("bundle digest")?;
        let quality = reader.byte("quality")?;
        let content_type = reader.bytes("content-type", MAX_CONTENT_TYPE)?;
        let content_type = match std::str::from_utf8(content_type) {
            Ok("") => None,
            Ok(text) => Some(text.to_owned()),
            Err(error) => {
                let value = error.valid_up_to() as u64;
                return Err(FrameError::Invalid {
                    field: "content-type, at byte,",
                    value,
                });
            }
        };
        let skeleton = reader
            .bytes("skeleton length", limits.max_skeleton)?
            .to_vec();
        let json_end = reader.varint("end of JSON")?.checked_sub(1);
        if let Some(end) = json_end
            && end > skeleton.len()
        {
            return Err(FrameError::Invalid {
                field: "end of JSON",
                value: end as u64,
            });
        }
        let mut skeleton = Skeleton {
            bytes: skeleton,
            json_end,
            ..Skeleton::default()
        };
        let count = reader.varint("number of slots")?;
        check("number of slots", count, limits.max_slots)?;
        let mut slots = Vec::with_capacity(count);
        for index in 0..count {
            let last = skeleton.offsets.last().copied().unwrap_or(0);
            let offset = reader.place("slot offset", last, skeleton.bytes.len())?;
            skeleton.offsets.push(offset);
            slots.push(reader.slot(index, limits)?);
        }
        let count = reader.varint("number of lengths")?;
        check(
            "number of lengths",
            count,
            limits.max_slots * LENGTHS_PER_SLOT,
        )?;
        for _ in 0..count {
            let length = reader.length(&skeleton, count)?;
            skeleton.lengths.push(length);
        }
        match reader.rest.len() {
            0 => Ok(Self {
                bundle,
                quality,
                content_type,
                skeleton,
                slots,
            }),
            left => Err(FrameError::Trailing(left)),
        }
    }
}

fn check(field: &'static str, value: usize, limit: usize) -> Result<(), FrameError> {
    if value > limit {
        Err(FrameError::Limit {
            field,
            value,
            limit,
        })
    } else {
        Ok(())
    }
}

fn put_varint(out: &mut Vec<u8>, value: usize) {
    protobuf::put_varint(out, value as u64);
}

fn put_picture(out: &mut Vec<u8>, picture: &PictureSlot) {
    put_form(out, &picture.form, picture.color);
    out.push(picture.orientation);
    put_varint(out, picture.width as usize);
    put_varint(out, picture.height as usize);
    put_varint(out, picture.max_side as usize);
    put_bytes(out, &picture.code);
}

fn put_sound(out: &mut Vec<u8>, text: Text, sound: &Sound) {
    out.extend([SOUND, text.id()]);
    put_bytes(out, &sound.head);
    put_bytes(out, &sound.tail);
    let codec = match sound.code {
        Code::Flac(_) => 0,
        Code::Opus(_) => 1,
    };
    let Samples {
        channels,
        width,
        rate,
        count,
    } = sound.samples;
    out.extend([codec, channels, width]);
    put_varint(out, rate as usize);
    put_varint(out, count as usize);
    put_bytes(out, sound.code.bytes());
}

fn put_form(out: &mut Vec<u8>, form: &Form, color: Color) {
    let grey = if color == Color::Gray { GREY } else { 0 };
    match form {
        Form::File { media, text } => out.extend([media.id() | grey, text.id()]),
        // A sound is no picture's form.
        Form::Sound(text) => out.extend([SOUND, text.id()]),
        Form::Tensor(tensor) => {
            let element = match tensor.element {
                Element::U8 => 0,
                Element::F16 => 1,
                Element::F32 => 2,
            };
            let layout = match tensor.layout {
                Layout::Chw => 0,
                Layout::Hwc => 4,
            };
            let notation = match tensor.notation {
                tensor::Notation::Binary => 0,
                tensor::Notation::Flat => 1 << 3,
                tensor::Notation::Nested => 2 << 3,
            };
            out.extend([TENSOR | grey, element | layout | notation]);
            let Values { scale, mean, std } = tensor.values;
            let named = Values::NAMED
                .iter()
                .position(|(_, values)| *values == tensor.values);
            if let Some(index) = named {
                out.push(index as u8);
            } else {
                out.push(OWN_VALUES);
                for value in [scale].iter().chain(&mean).chain(&std) {
                    out.extend(value.to_le_bytes());
                }
            }
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len());
    out.extend_from_slice(bytes);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], FrameError> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(FrameError::Truncated(field))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        let (head, tail) = self
            .rest
            .split_first_chunk()
            .ok_or(FrameError::Truncated(field))?;
        self.rest = tail;
        Ok(*head)
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, FrameError> {
        Ok(self.array::<1>(field)?[0])
    }

    fn varint(&mut self, field: &'static str) -> Result<usize, FrameError> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte(field)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return match u32::try_from(value) {
                    Ok(value) => Ok(value as usize),
                    Err(_) => Err(FrameError::Invalid { field, value }),
                };
            }
        }
        Err(FrameError::Invalid { field, value })
    }

    fn bytes(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], FrameError> {
        let len = self.varint(field)?;
        check(field, len, limit)?;
        self.take(len, field)
    }

    /// An offset that must lie from `first` to `last`.
    fn place(
        &mut self,
        field: &'static str,
        first: usize,
        last: usize,
    ) -> Result<usize, FrameError> {
        let place = self.varint(field)?;
        if (first..=last).contains(&place) {
            Ok(place)
        } else {
            let value = place as u64;
            Err(FrameError::Invalid { field, value })
        }
    }

    /// One of `all` lengths, which stands behind those of the skeleton, between two of its slots.
    fn length(&mut self, skeleton: &Skeleton, all: usize) -> Result<Length, FrameError> {
        let slots = skeleton.offsets.len();
        let last = skeleton.lengths.last();
        let offset = self.varint("offset of a length")?;
        let after = last.map_or(0, |last| last.after);
        let after = self.place("place of a length", after, slots)?;
        let before = after
            .checked_sub(1)
            .and_then(|slot| skeleton.offsets.get(slot));
        let lowest = before
            .copied()
            .unwrap_or(0)
            .max(last.map_or(0, |last| last.offset));
        let highest = skeleton.offsets.get(after).copied();
        if !(lowest..=highest.unwrap_or(skeleton.bytes.len())).contains(&offset) {
            return Err(FrameError::Invalid {
                field: "offset of a length",
                value: offset as u64,
            });
        }
        let notation = match self.byte("notation of a length")? {
            0 => Notation::Decimal,
            1 => Notation::U32,
            2 => Notation::U32BigEndian,
            3 => Notation::Varint,
            other => {
                return Err(FrameError::Invalid {
                    field: "notation of a length",
                    value: other.into(),
                });
            }
        };
        let start = self.place("first slot of a length", 0, slots)?;
        let count = self.place("slots of a length", 0, slots - start)?;
        let most = skeleton.bytes.len() + LENGTH_BYTES * all;
        let plus = self.place("bytes of a length", 0, most)?;
        Ok(Length {
            offset,
            after,
            notation,
            slots: start..start + count,
            plus,
        })
    }

    fn slot(&mut self, index: usize, limits: &Limits) -> Result<Slot, FrameError> {
        match self.byte("slot media type")? {
            SOUND => self.sound(index, limits),
            kind => Ok(Slot::Picture(self.picture(kind, index, limits)?)),
        }
    }

    fn text(&mut self) -> Result<Text, FrameError> {
        let id = self.byte("slot text")?;
        Text::from_id(id).ok_or(FrameError::Invalid {
            field: "slot text",
            value: id.into(),
        })
    }

    /// The form of a picture of this kind, still without its size, and whether it is grey.
    fn form(&mut self, kind: u8) -> Result<(Form, Color), FrameError> {
        let color = if kind & GREY == 0 {
            Color::Rgb
        } else {
            Color::Gray
        };
        if kind & !GREY == TENSOR {
            return Ok((Form::Tensor(self.tensor(color)?), color));
        }
        let media = MediaType::from_id(kind & !GREY).ok_or(FrameError::Invalid {
            field: "slot media type",
            value: kind.into(),
        })?;
        let text = self.text()?;
        Ok((Form::File { media, text }, color))
    }

    fn sound(&mut self, index: usize, limits: &Limits) -> Result<Slot, FrameError> {
        let text = self.text()?;
        let mut around = || self.bytes("bytes around a sound", limits.max_skeleton);
        let (head, tail) = (around()?.to_vec(), around()?.to_vec());
        let codec = self.byte("codec of a sound")?;
        let [channels, width] = self.array("samples of a sound")?;
        let rate = self.varint("rate of a sound")? as u32;
        let count = self.varint("length of a sound")? as u32;
        let samples = Samples {
            channels,
            width,
            rate,
            count,
        };
        if !samples.is_valid() {
            return Err(FrameError::Invalid {
                field: "channels, bytes, rate or length of a sound, of which the last",
                value: count.into(),
            });
        }
        let checked = samples.check(limits);
        checked.map_err(|source| FrameError::Sound {
            slot: index,
            source,
        })?;
        let code = self.bytes("slot code length", limits.max_code)?.to_vec();
        let code = match codec {
            0 => Code::Flac(code),
            1 => Code::Opus(code),
            other => {
                return Err(FrameError::Invalid {
                    field: "codec of a sound",
                    value: other.into(),
                });
            }
        };
        let sound = Sound {
            head,
            tail,
            samples,
            code,
        };
        Ok(Slot::Sound { text, sound })
    }

    fn tensor(&mut self, color: Color) -> Result<Tensor, FrameError> {
        let kind = self.byte("slot tensor")?;
        let invalid = |field, value: u8| FrameError::Invalid {
            field,
            value: value.into(),
        };
        let element = match kind & 3 {
            0 => Element::U8,
            1 => Element::F16,
            2 => Element::F32,
            _ => return Err(invalid("slot tensor", kind)),
        };
        let layout = if kind & 4 == 0 {
            Layout::Chw
        } else {
            Layout::Hwc
        };
        let notation = match kind >> 3 {
            0 => tensor::Notation::Binary,
            1 => tensor::Notation::Flat,
            2 => tensor::Notation::Nested,
            _ => return Err(invalid("slot tensor", kind)),
        };
        let id = self.byte("slot values")?;
        let values = match Values::NAMED.get(usize::from(id)) {
            Some((_, values)) => *values,
            None if id == OWN_VALUES => {
                let mut own = [0.0; 7];
                for value in &mut own {
                    *value = f32::from_le_bytes(self.array("slot values")?);
                }
                let [scale, mean @ .., s0, s1, s2] = own;
                Values {
                    scale,
                    mean,
                    std: [s0, s1, s2],
                }
            }
            None => return Err(invalid("slot values", id)),
        };
        if !values.is_valid() {
            return Err(invalid("slot values", id));
        }
        Ok(Tensor {
            width: 0,
            height: 0,
            color,
            element,
            layout,
            notation,
            values,
        })
    }

    fn picture(
        &mut self,
        kind: u8,
        index: usize,
        limits: &Limits,
    ) -> Result<PictureSlot, FrameError> {
        let (mut form, color) = self.form(kind)?;
        let orientation = self.byte("slot orientation")?;
        if !(1..=8).contains(&orientation) {
            let value = orientation.into();
            return Err(FrameError::Invalid {
                field: "slot orientation",
                value,
            });
        }
        let width = self.varint("slot width")? as u32;
        let height = self.varint("slot height")? as u32;
        if width == 0 || height == 0 {
            return Err(FrameError::Invalid {
                field: "slot width or height",
                value: 0,
            });
        }
        limits
            .check_picture(width, height)
            .map_err(|source| FrameError::Picture {
                slot: index,
                source,
            })?;
        let max_side = self.varint("slot longest side")? as u32;
        let code = self.bytes("slot code length", limits.max_code)?.to_vec();
        if let Form::Tensor(tensor) = &mut form {
            (tensor.width, tensor.height) = (width, height);
        }
        Ok(PictureSlot {
            form,
            width,
            height,
            color,
            orientation,
            max_side,
            code,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Text> {
        let base64 = |(url_safe, padded, escaped)| Text::Base64 {
            url_safe,
            padded,
            escaped,
        };
        prop_oneof![
            Just(Text::Raw),
            any::<(bool, bool, bool)>().prop_map(base64)
        ]
    }

    fn form() -> impl Strategy<Value = Form> {
        let media = prop_oneof![
            Just(MediaType::Jpeg),
            Just(MediaType::Png),
            Just(MediaType::WebP),
            Just(MediaType::Bmp)
        ];
        let values = prop_oneof![
            (0..Values::NAMED.len()).prop_map(|index| Values::NAMED[index].1),
            (1.0_f32..2.0, any::<[i8; 3]>()).prop_map(|(scale, mean)| Values {
                scale,
                mean: mean.map(f32::from),
                std: [0.5, 2.0, 3.0],
            })
        ];
        let tensor = (
            prop_oneof![Just(Element::U8), Just(Element::F16), Just(Element::F32)],
            prop_oneof![Just(Layout::Chw), Just(Layout::Hwc)],
            prop_oneof![
                Just(tensor::Notation::Binary),
                Just(tensor::Notation::Flat),
                Just(tensor::Notation::Nested)
            ],
            values,
        );
        prop_oneof![
            (media, text()).prop_map(|(media, text)| Form::File { media, text }),
            tensor.prop_map(|(element, layout, notation, values)| Form::Tensor(Tensor {
                width: 0,
                height: 0,
                color: Color::Rgb,
                element,
                layout,
                notation,
                values,
            }))
        ]
    }

    fn sound() -> impl Strategy<Value = Slot> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..90);
        (
            text(),
            (bytes(), bytes(), bytes()),
            (1_u8..=8, 2_u8..=3, 1_u32..=96_000, 1_u32..100_000),
            any::<bool>(),
        )
            .prop_map(|(text, (head, tail, code), samples, flac)| {
                let (channels, width, rate, count) = samples;
                Slot::Sound {
                    text,
                    sound: Sound {
                        head,
                        tail,
                        samples: Samples {
                            channels,
                            width,
                            rate,
                            count,
                        },
                        code: if flac {
                            Code::Flac(code)
                        } else {
                            Code::Opus(code)
                        },
                    },
                }
            })
    }

    fn slot() -> impl Strategy<Value = Slot> {
        prop_oneof![3 => picture().prop_map(Slot::Picture), 1 => sound()]
    }

    fn picture() -> impl Strategy<Value = PictureSlot> {
        (
            form(),
            (1_u32..5000, 1_u32..5000),
            any::<bool>(),
            1_u8..=8,
            prop_oneof![Just(0), 1_u32..5000],
            prop::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(
                |(mut form, (width, height), grey, orientation, max_side, code)| {
                    let color = if grey { Color::Gray } else { Color::Rgb };
                    if let Form::Tensor(tensor) = &mut form {
                        (tensor.width, tensor.height, tensor.color) = (width, height, color);
                    }
                    PictureSlot {
                        form,
                        width,
                        height,
                        color,
                        orientation,
                        max_side,
                        code,
                    }
                },
            )
    }

    /// A skeleton of `bytes` with a place for each of `slots`, and lengths of each kind.
    fn skeleton(bytes: Vec<u8>, mut offsets: Vec<usize>, lengths: bool) -> Skeleton {
        offsets.sort_unstable();
        let count = offsets.len();
        let length = |index: usize, notation| Length {
            offset: offsets[index],
            after: index,
            notation,
            slots: index..count,
            plus: index,
        };
        let lengths = (0..count)
            .filter(|_| lengths)
            .flat_map(|index| {
                [
                    length(index, Notation::Decimal),
                    length(index, Notation::U32),
                ]
            })
            .collect();
        Skeleton {
            json_end: offsets.first().copied(),
            bytes,
            lengths,
            offsets,
        }
    }

    fn frame() -> impl Strategy<Value = Frame> {
        (
            any::<[u8; 8]>(),
            any::<u8>(),
            prop::option::of("[ -~]{1,60}"),
            prop::collection::vec(any::<u8>(), 200..400),
            prop::collection::vec((0_usize..200, slot()), 0..4),
            any::<bool>(),
        )
            .prop_map(|(bundle, quality, content_type, bytes, slots, lengths)| {
                let (offsets, slots) = slots.into_iter().unzip();
                Frame {
                    bundle,
                    quality,
                    content_type,
                    skeleton: skeleton(bytes, offsets, lengths),
                    slots,
                }
            })
    }

    fn small() -> Frame {
        Frame {
            bundle: *b"bundle00",
            quality: 2,
            content_type: Some("image/jpeg".into()),
            skeleton: skeleton(Vec::new(), vec![0], true),
            slots: vec![Slot::Picture(small_picture())],
        }
    }

    fn small_picture() -> PictureSlot {
        PictureSlot {
            form: Form::File {
                media: MediaType::Jpeg,
                text: Text::Raw,
            },
            width: 224,
            height: 224,
            color: Color::Rgb,
            orientation: 6,
            max_side: 0,
            code: (0..40).collect(),
        }
    }

    /// The frame with a right checksum, so that what is inside is what gets tested.
    fn sealed(mut body: Vec<u8>) -> Vec<u8> {
        let crc = crc32c::crc32c(&body);
        body.extend_from_slice(&crc.to_le_bytes());
        body
    }

    proptest! {
        #[test]
        fn round_trip(frame in frame()) {
            prop_assert_eq!(Frame::decode(&frame.encode(), &Limits::default()), Ok(frame));
        }

        #[test]
        fn any_bytes_give_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut body = vec![VERSION];
            body.extend_from_slice(&bytes);
            let sealed = sealed(body);
            if let Ok(frame) = Frame::decode(&sealed, &Limits::default()) {
                let held = frame.skeleton.bytes.len() + frame.slots.iter().map(|s| s.code().len()).sum::<usize>();
                prop_assert!(held <= sealed.len());
            }
        }
    }

    #[test]
    fn costs_less_than_64_bytes() {
        let frame = small();
        assert!(frame.encode().len() - frame.slots[0].code().len() < 56);
        let mut frame = frame;
        frame.skeleton.lengths.clear();
        assert!(frame.encode().len() - frame.slots[0].code().len() < 44);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let bytes = small().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Frame::decode(&damaged, &Limits::default()).is_err(),
                "bit {bit}"
            );
        }
        for len in 0..bytes.len() {
            assert!(
                Frame::decode(&bytes[..len], &Limits::default()).is_err(),
                "length {len}"
            );
        }
    }

    #[test]
    fn flipped_bits_under_a_right_checksum_never_panic() {
        let bytes = small().encode();
        let body = &bytes[..bytes.len() - CRC_BYTES];
        for bit in 0..body.len() * 8 {
            let mut damaged = body.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(frame) = Frame::decode(&sealed(damaged), &Limits::default()) {
                assert_ne!(frame, small(), "bit {bit}");
            }
        }
        for len in 0..body.len() {
            assert!(Frame::decode(&sealed(body[..len].to_vec()), &Limits::default()).is_err());
        }
    }

    #[test]
    fn limits_are_named() {
        let mut frame = small();
        frame.slots[0] = Slot::Picture(PictureSlot {
            width: 12_000,
            height: 9000,
            ..small_picture()
        });
        let limits = Limits {
            max_side: 4096,
            ..Limits::default()
        };
        let error = Frame::decode(&frame.encode(), &limits).unwrap_err();
        assert_eq!(
            error.to_string(),
            "slot 0: picture is 12000x9000, limit 4096 pixels a side"
        );

        let samples = Samples {
            channels: 2,
            width: 2,
            rate: 48_000,
            count: 500,
        };
        frame.slots[0] = Slot::Sound {
            text: Text::Raw,
            sound: Sound {
                head: Vec::new(),
                tail: Vec::new(),
                samples,
                code: Code::Flac(Vec::new()),
            },
        };
        let limits = Limits {
            max_samples: 999,
            ..Limits::default()
        };
        let error = Frame::decode(&frame.encode(), &limits).unwrap_err();
        assert_eq!(
            error.to_string(),
            "slot 0: sound has 1000 samples, limit 999"
        );

        let limits = Limits {
            max_slots: 0,
            ..Limits::default()
        };
        let error = Frame::decode(&small().encode(), &limits).unwrap_err();
        assert_eq!(error.to_string(), "frame number of slots is 1, limit 0");

        let limits = Limits {
            max_code: 39,
            ..Limits::default()
        };
        let error = Frame::decode(&small().encode(), &limits).unwrap_err();
        assert_eq!(error.to_string(), "frame slot code length is 40, limit 39");
    }

    #[test]
    fn a_length_that_is_not_there_takes_no_memory() {
        let mut body = vec![VERSION];
        body.extend_from_slice(&[0; 9]);
        body.push(0);
        put_varint(&mut body, 1 << 20);
        assert_eq!(
            Frame::decode(&sealed(body), &Limits::default()),
            Err(FrameError::Truncated("skeleton length"))
        );
    }
}
