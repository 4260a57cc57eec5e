//! JSON bodies: photos in base64 strings, and arrays of pixels, at the places of a shape.
//!
//! `serde_json` reads the body in place and gives the text of each value as a part of it; nothing
//! is parsed beyond the places that are looked for.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::Limits;
use crate::tensor::{self, Notation, Tensor};

use super::shape::{Pointer, Segment};
use super::{Form, Found, Input, Shape, SlotError, Text, text};

/// Values nested deeper than this are not looked into.
const DEPTH: usize = 32;

/// Finds the inputs at the shape's places.
pub(super) fn find(body: &[u8], shape: &Shape, limits: &Limits) -> Result<Found, SlotError> {
    let document = Document::read(body)?;
    let root = document.root()?;
    let mut found = Found::default();
    let states: Vec<&[Segment]> = shape
        .pointers
        .iter()
        .map(|Pointer(path)| &path[..])
        .collect();
    document.search(root, &states, DEPTH, shape, limits, &mut found)?;
    found.inputs.sort_by_key(|input| input.range.start);
    Ok(found)
}

/// A JSON text whose values can be told by their place in it.
pub(super) struct Document<'b> {
    body: &'b [u8],
    text: Cow<'b, str>,
}

impl<'b> Document<'b> {
    /// Reads it. `NaN`, `Infinity` and `-Infinity`, which are no JSON but are sent, are taken as
    /// numbers.
    pub(super) fn read(body: &'b [u8]) -> Result<Self, SlotError> {
        let text = std::str::from_utf8(body).map_err(|error| SlotError::Json(error.to_string()))?;
        let text = match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Cow::Borrowed(text),
            Err(error) => {
                let text = without_non_numbers(text).ok_or_else(|| wrong(&error))?;
                serde_json::from_str::<&RawValue>(&text).map_err(|error| wrong(&error))?;
                Cow::Owned(text)
            }
        };
        Ok(Self { body, text })
    }

    /// The outermost value.
    pub(super) fn root(&self) -> Result<&RawValue, SlotError> {
        serde_json::from_str(&self.text).map_err(|error| wrong(&error))
    }

    /// Where a value of this document stands in the body.
    pub(super) fn range(&self, value: &RawValue) -> Range<usize> {
        let start = value.get().as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + value.get().len()
    }

    /// The bytes of a value as they were sent.
    pub(super) fn bytes(&self, value: &RawValue) -> &'b [u8] {
        &self.body[self.range(value)]
    }

    fn search(
        &self,
        value: &RawValue,
        states: &[&[Segment]],
        depth: usize,
        shape: &Shape,
        limits: &Limits,
        found: &mut Found,
    ) -> Result<(), SlotError> {
        // What remains of each pointer; `**` may also stand for nothing.
        let mut states = states.to_vec();
        let mut index = 0;
        while let Some(state) = states.get(index) {
            if let [Segment::Deep, rest @ ..] = state {
                states.push(rest);
            }
            index += 1;
        }
        let here = states.iter().any(|state| state.is_empty());
        let first = value.get().as_bytes()[0];
        if (here && self.input(value, shape, limits, found)?) || depth == 0 {
            return Ok(());
        }
        let step = |name: &str| -> Vec<&[Segment]> {
            states
                .iter()
                .filter_map(|state| match state {
                    [Segment::Name(wanted), rest @ ..] => (wanted == name).then_some(rest),
                    [Segment::Any, rest @ ..] => Some(rest),
                    [Segment::Deep, ..] => Some(*state),
                    [] => None,
                })
                .collect()
        };
        match first {
            b'{' => {
                for (key, member) in entries(value)? {
                    let next = step(&key);
                    if !next.is_empty() {
                        self.search(member, &next, depth - 1, shape, limits, found)?;
                    }
                }
            }
            // An array of numbers has no strings in it.
            b'[' if states.iter().any(|state| !state.is_empty()) && value.get().contains('"') => {
                for (index, element) in elements(value)?.into_iter().enumerate() {
                    let next = step(&index.to_string());
                    if !next.is_empty() {
                        self.search(element, &next, depth - 1, shape, limits, found)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds what the value holds: a photo in base64, or the pixels of some.
    fn input(
        &self,
        value: &RawValue,
        shape: &Shape,
        limits: &Limits,
        found: &mut Found,
    ) -> Result<bool, SlotError> {
        let before = found.inputs.len();
        match value.get().as_bytes()[0] {
            b'"' => {
                if let Some((range, text)) = self.base64(value) {
                    match Form::of(&self.body[range.clone()], text) {
                        Some(form) => found.inputs.push(Input { range, form }),
                        None => found.hear(self.body, range, text, limits.max_slots),
                    }
                }
            }
            b'[' => {
                if let Some(tensors) = &shape.tensors {
                    self.nested(value, tensors, limits, &mut found.inputs);
                }
            }
            _ => {}
        }
        if found.inputs.len() > limits.max_slots {
            return Err(SlotError::TooMany {
                limit: limits.max_slots,
            });
        }
        Ok(found.inputs.len() > before)
    }

    /// The photo in a string.
    pub(super) fn string(&self, value: &RawValue) -> Option<Input> {
        let (range, text) = self.base64(value)?;
        let form = Form::of(&self.body[range.clone()], text)?;
        Some(Input { range, form })
    }

    /// Where the base64 of a string stands, and how it is written, if it is some.
    fn base64(&self, value: &RawValue) -> Option<(Range<usize>, Text)> {
        let quoted = self.range(value);
        let string = quoted.start + 1..quoted.end - 1;
        let letters = text::base64_of(&self.body[string.clone()])?;
        let range = string.start + letters.start..string.start + letters.end;
        let text = text::sniff(&self.body[range.clone()])?;
        Some((range, text))
    }

    /// The pictures in nested arrays of numbers.
    pub(super) fn nested(
        &self,
        value: &RawValue,
        tensors: &super::Tensors,
        limits: &Limits,
        inputs: &mut Vec<Input>,
    ) {
        let Some(dimensions) = tensor::nested_dimensions(self.bytes(value)) else {
            return;
        };
        let Some(pictures) = tensor::pictures(&dimensions, tensors.layout, limits) else {
            return;
        };
        let tensor = Tensor {
            element: tensor::Element::F32,
            notation: Notation::Nested,
            values: tensors.values,
            ..pictures.tensor
        };
        let mut level = vec![value];
        for _ in 3..dimensions.len() {
            let Ok(next) = level
                .iter()
                .map(|value| elements(value))
                .collect::<Result<Vec<_>, _>>()
            else {
                return;
            };
            level = next.into_iter().flatten().collect();
        }
        // A further one than allowed is enough to be refused.
        for picture in level.into_iter().take(limits.max_slots + 1) {
            inputs.push(Input {
                range: self.range(picture),
                form: Form::Tensor(tensor),
            });
        }
    }
}

fn wrong(error: &serde_json::Error) -> SlotError {
    SlotError::Json(error.to_string())
}

/// The members of an object, in their order; keys may occur twice.
pub(super) fn entries(object: &RawValue) -> Result<Vec<(Cow<'_, str>, &RawValue)>, SlotError> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((Key(key), value)) = map.next_entry()? {
                members.push((key, value));
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(object.get())
        .deserialize_map(Members)
        .map_err(|error| wrong(&error))
}

/// The elements of an array.
pub(super) fn elements(array: &RawValue) -> Result<Vec<&RawValue>, SlotError> {
    serde_json::from_str(array.get()).map_err(|error| wrong(&error))
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The same text with numbers of the same length for the non-numbers outside of its strings; none
/// if there are none.
fn without_non_numbers(text: &str) -> Option<String> {
    const WORDS: [(&str, &str); 2] = [("NaN", "0.0"), ("Infinity", "0.000000")];
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    let mut any = false;
    while let Some(at) = rest.find(['"', 'N', 'I']) {
        replaced.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('"') {
            let end = string_end(rest.as_bytes())?;
            replaced.push_str(&rest[..end]);
            rest = &rest[end..];
        } else {
            let (word, number) = WORDS.into_iter().find(|(word, _)| rest.starts_with(word))?;
            replaced.push_str(number);
            rest = &rest[word.len()..];
            any = true;
        }
    }
    replaced.push_str(rest);
    any.then_some(replaced)
}

/// Where the string at the start of `text` ends, its quotes included.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
