//! A frame out of bytes from outside.

use super::{Frame, FrameError, GREY, OWN_VALUES, PictureSlot, SOUND, Slot, TENSOR, VERSION};
use crate::limits::Limits;
use crate::media::{Color, MediaType};
use crate::slot::{Form, Length, Notation, Skeleton, Text};
use crate::sound::{Code, Samples, Sound};
use crate::tensor::{self, Element, Layout, Tensor, Values};

pub(super) const CRC_BYTES: usize = 4;
/// A content-type longer than this is no content-type.
const MAX_CONTENT_TYPE: usize = 1024;
/// Lengths that one slot may have: its own, and those of what it is in, of which gRPC has three.
const LENGTHS_PER_SLOT: usize = 4;
/// Bytes of a length at most, where their number does not depend on it.
const LENGTH_BYTES: usize = 4;

impl Frame {
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
            2 => Code::Pcm(code),
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
