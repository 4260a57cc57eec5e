//! A frame as bytes.

use super::{Frame, GREY, OWN_VALUES, PictureSlot, SOUND, Slot, TENSOR, VERSION};
use crate::media::Color;
use crate::protobuf;
use crate::slot::{Form, Notation, Text};
use crate::sound::{Code, Samples, Sound};
use crate::tensor::{self, Element, Layout, Values};

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
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: usize) {
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
        Code::Pcm(_) => 2,
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
