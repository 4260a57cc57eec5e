//! Slots: the byte ranges of a request body that hold an input.
//!
//! [`find`] tells them by the [`Shape`] that a route names, [`cut`] takes them out of the body, and
//! [`fill`] puts others in their places. What is not an input is never parsed further than needed
//! and never written anew: every byte between the slots survives as it was.
//!
//! Some protocols also say how long an input is, or what holds it, in digits or in bytes. Such a
//! [`Length`] is taken out with the input, and written anew when the length of what is filled in is
//! known.

mod form;
pub mod grpc;
mod json;
mod multipart;
mod oip;
mod shape;
mod text;

use std::ops::Range;

use crate::limits::Limits;
use crate::protobuf;
use crate::sound::SoundType;

pub use form::Form;
pub use shape::{Pointer, PointerError, Preset, Shape, Tensors};
pub use text::Text;

/// The body of a request and what its headers say of it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The body, without any content coding.
    pub body: &'a [u8],
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Inference-Header-Content-Length` of the Open Inference Protocol: bytes of the JSON at the
    /// start of the body.
    pub json_length: Option<usize>,
}

/// One input in a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its bytes.
    pub range: Range<usize>,
    /// How it is written there.
    pub form: Form,
}

/// A sound in a body that is compressed already, so that it stays where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// Its bytes.
    pub range: Range<usize>,
    /// Its type.
    pub media: SoundType,
}

/// A number in a body that says how many bytes some inputs take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// Its bytes.
    pub range: Range<usize>,
    /// How it is written there.
    pub notation: Notation,
    /// Which inputs it counts, by their index.
    pub inputs: Range<usize>,
    /// Bytes that it counts beside them, without those of varints in it.
    pub plus: usize,
}

/// How a length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// Decimal digits.
    Decimal,
    /// Four bytes, little-endian.
    U32,
    /// Four bytes, big-endian.
    U32BigEndian,
    /// A varint, as protocol buffers have it. Lengths before it that count its slots count its bytes.
    Varint,
}

/// What there is in a body. Inputs and measures ascend and do not overlap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The inputs.
    pub inputs: Vec<Input>,
    /// Numbers that say how long they are.
    pub measures: Vec<Measure>,
    /// Where the JSON ends whose length a header tells.
    pub json_end: Option<usize>,
    /// The sounds that are not among them, for whoever asks why they are not coded.
    pub sounds: Vec<Sound>,
}

/// Where a length belongs in a skeleton.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Length {
    /// Its place in the skeleton.
    pub offset: usize,
    /// How many slots stand before it.
    pub after: usize,
    /// How it is written.
    pub notation: Notation,
    /// Which slots it counts, by their index.
    pub slots: Range<usize>,
    /// Bytes that it counts beside them, without those of varints in it.
    pub plus: usize,
}

/// A body without its inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skeleton {
    /// The bytes between the inputs.
    pub bytes: Vec<u8>,
    /// Where each input belongs; they ascend.
    pub offsets: Vec<usize>,
    /// The lengths that belong in it, in their order.
    pub lengths: Vec<Length>,
    /// Where the JSON ends whose length a header tells.
    pub json_end: Option<usize>,
}

/// Why no slots can be told for a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The content-type says multipart, but names no usable boundary.
    #[error("multipart content-type without a usable boundary")]
    NoBoundary,
    /// The body is not the multipart that its content-type announces.
    #[error("multipart body: {0}")]
    Multipart(&'static str),
    /// The body is not the JSON that the shape asks for.
    #[error("JSON body: {0}")]
    Json(String),
    /// The tensors of an inference request cannot be told.
    #[error("inference request: {0}")]
    Inference(String),
    /// More inputs than allowed.
    #[error("more than {limit} inputs in one request, which is the limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The body is too large beside its inputs.
    #[error("body has {bytes} bytes beside its inputs, limit {limit}")]
    Skeleton {
        /// Bytes beside the inputs.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// Finds the inputs in a body.
///
/// In every shape a body that is a photo or a sound is one, and so is every part of a
/// `multipart/form-data` that is one; the bytes decide, not the declared type. What else is looked for
/// is the shape's.
///
/// # Errors
/// [`SlotError`] where the body cannot be read as what it says it is, or holds more than the limits
/// allow.
pub fn find(request: &Request, shape: &Shape, limits: &Limits) -> Result<Found, SlotError> {
    let Request {
        body, content_type, ..
    } = *request;
    let found = match content_type {
        Some(value) if grpc::is(value) && shape.inference => grpc::find(request, shape, limits)?,
        Some(value) if grpc::is(value) => Found::default(),
        Some(value) if multipart::is(value) => multipart::find(value, body, limits.max_slots)?,
        _ if let Some(form) = Form::of(body, Text::Raw) => whole(body, Some(form), Text::Raw),
        _ if shape.inference => oip::find(request, shape, limits)?,
        _ if shape.base64_body
            && let Some(text) = text::sniff(body) =>
        {
            whole(body, Form::of(body, text), text)
        }
        _ if !shape.pointers.is_empty() => json::find(body, shape, limits)?,
        _ if shape.tensors.is_some() => oip::body(request, shape, limits),
        _ => whole(body, None, Text::Raw),
    };
    if found.inputs.len() > limits.max_slots {
        return Err(SlotError::TooMany {
            limit: limits.max_slots,
        });
    }
    let inputs = found.inputs.iter().map(|input| input.range.len());
    let bytes = body.len() - inputs.sum::<usize>();
    if !found.inputs.is_empty() && bytes > limits.max_skeleton {
        return Err(SlotError::Skeleton {
            bytes,
            limit: limits.max_skeleton,
        });
    }
    Ok(found)
}

impl Found {
    /// Notes the sound in a part of a body, if it is one: as many as inputs may be found, at most.
    fn hear(&mut self, body: &[u8], range: Range<usize>, text: Text, most: usize) {
        if self.sounds.len() < most
            && let Some(bytes) = text.begin(&body[range.clone()])
            && let Some(media) = SoundType::sniff(&bytes)
        {
            self.sounds.push(Sound { range, media });
        }
    }
}

/// A body that is one input, or a sound; `text` says how its bytes stand there.
fn whole(body: &[u8], form: Option<Form>, text: Text) -> Found {
    let range = 0..body.len();
    let mut found = Found::default();
    match form {
        Some(form) => found.inputs.push(Input { range, form }),
        None => found.hear(body, range, text, 1),
    }
    found
}

/// The body without the bytes of what was found in it.
#[must_use]
pub fn cut(body: &[u8], found: &Found) -> Skeleton {
    let mut skeleton = Skeleton::default();
    let mut inputs = found.inputs.iter().peekable();
    let mut measures = found.measures.iter().peekable();
    let mut from = 0;
    let mut json_end = found.json_end;
    loop {
        let input = inputs.peek().map(|input| input.range.clone());
        let measure = measures.peek().map(|measure| measure.range.clone());
        // What is empty comes before what begins at the same place.
        let place = |range: &Option<Range<usize>>| {
            range
                .as_ref()
                .map_or((usize::MAX, 0), |range| (range.start, range.end))
        };
        let take_measure = place(&measure) <= place(&input);
        let next = if take_measure { measure } else { input };
        let end = next.as_ref().map_or(body.len(), |range| range.start);
        if let Some(at) = json_end
            && at <= end
        {
            skeleton.json_end = Some(skeleton.bytes.len() + at.saturating_sub(from));
            json_end = None;
        }
        skeleton.bytes.extend_from_slice(&body[from..end]);
        let Some(range) = next else { break };
        let offset = skeleton.bytes.len();
        if take_measure {
            if let Some(measure) = measures.next() {
                skeleton.lengths.push(Length {
                    offset,
                    after: skeleton.offsets.len(),
                    notation: measure.notation,
                    slots: measure.inputs.clone(),
                    plus: measure.plus,
                });
            }
        } else {
            inputs.next();
            skeleton.offsets.push(offset);
        }
        from = range.end;
    }
    skeleton
}

/// A body out of a skeleton, and how long its JSON is where a header has to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filled {
    /// The body.
    pub body: Vec<u8>,
    /// Bytes of its JSON.
    pub json_length: Option<usize>,
}

/// The skeleton with `parts`, one for each slot, and the lengths put in at their offsets. Offsets
/// must ascend and lie inside the skeleton, and lengths count slots that there are, as
/// [`crate::frame::Frame::decode`] guarantees.
#[must_use]
pub fn fill(skeleton: &Skeleton, parts: &[Vec<u8>]) -> Filled {
    let added: usize = parts.iter().map(|part| part.len() + 8).sum();
    let mut filled = Filled {
        body: Vec::with_capacity(skeleton.bytes.len() + added),
        json_length: None,
    };
    let mut from = 0;
    let mut put = |filled: &mut Filled, offset: usize, part: &[u8]| {
        if let Some(end) = skeleton.json_end
            && filled.json_length.is_none()
            && offset >= end
        {
            filled.json_length = Some(filled.body.len() + end - from);
        }
        filled.body.extend_from_slice(&skeleton.bytes[from..offset]);
        filled.body.extend_from_slice(part);
        from = offset;
    };
    let written = lengths(skeleton, parts);
    let mut lengths = skeleton.lengths.iter().zip(&written).peekable();
    for index in 0..=parts.len() {
        while let Some((length, written)) = lengths.next_if(|(length, _)| length.after == index) {
            put(&mut filled, length.offset, written);
        }
        if let (Some(part), Some(offset)) = (parts.get(index), skeleton.offsets.get(index)) {
            put(&mut filled, *offset, part);
        }
    }
    put(&mut filled, skeleton.bytes.len(), &[]);
    filled
}

/// What stands for each length of a skeleton with these parts.
fn lengths(skeleton: &Skeleton, parts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let lengths = &skeleton.lengths;
    let mut written = vec![Vec::new(); lengths.len()];
    // From the last one on, because a length counts the varints in it.
    for (index, length) in lengths.iter().enumerate().rev() {
        let slots = &length.slots;
        let counted = parts.get(slots.clone()).unwrap_or_default();
        let inside =
            |other: &Length| slots.start <= other.slots.start && other.slots.end <= slots.end;
        let behind = lengths.iter().zip(&written).skip(index + 1);
        let varints =
            behind.filter(|(other, _)| other.notation == Notation::Varint && inside(other));
        let bytes = length.plus
            + counted.iter().map(Vec::len).sum::<usize>()
            + varints.map(|(_, written)| written.len()).sum::<usize>();
        let four = u32::try_from(bytes).unwrap_or(u32::MAX);
        written[index] = match length.notation {
            Notation::Decimal => bytes.to_string().into_bytes(),
            Notation::U32 => four.to_le_bytes().to_vec(),
            Notation::U32BigEndian => four.to_be_bytes().to_vec(),
            Notation::Varint => {
                let mut varint = Vec::new();
                protobuf::put_varint(&mut varint, bytes as u64);
                varint
            }
        };
    }
    written
}

#[cfg(test)]
mod tests;
