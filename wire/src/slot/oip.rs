//! The Open Inference Protocol (`KServe` v2, Triton, `MLServer`): tensors in JSON, and in bytes
//! behind it with the binary tensor data extension.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::Limits;
use crate::tensor::{self, Element, Notation as Written, Tensor};

use super::json::{Document, elements};
use super::{Form, Found, Input, Measure, Notation, Request, Shape, SlotError, Tensors, Text};

/// What there has to be in an inference request.
#[derive(Deserialize)]
struct Inference<'a> {
    #[serde(borrow)]
    inputs: Vec<&'a RawValue>,
}

/// One of its tensors.
#[derive(Deserialize)]
struct Described<'a> {
    shape: Vec<usize>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow)]
    parameters: Option<Parameters<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Parameters<'a> {
    #[serde(borrow)]
    binary_data_size: Option<&'a RawValue>,
}

/// Finds the pictures in the tensors of a request, and the numbers that count their bytes.
pub(super) fn find(request: &Request, shape: &Shape, limits: &Limits) -> Result<Found, SlotError> {
    let Request {
        body, json_length, ..
    } = *request;
    let mut finder = Finder::new(request, shape, limits);
    match json_length {
        // A raw binary request: nothing but the data of the only input.
        Some(0) => finder.undescribed(),
        Some(end) => {
            let json = body.get(..end).ok_or_else(|| {
                let bytes = body.len();
                wrong(format!(
                    "Inference-Header-Content-Length is {end}, the body has {bytes} bytes"
                ))
            })?;
            finder.found.json_end = Some(end);
            finder.described(json, end)?;
        }
        None => finder.described(body, body.len())?,
    }
    Ok(finder.finish())
}

/// Finds the pictures in tensors, however these are described.
pub(super) struct Finder<'r> {
    body: &'r [u8],
    /// What the route says of their numbers.
    tensors: Option<&'r Tensors>,
    limits: &'r Limits,
    found: Found,
    counts: Vec<Count>,
}

/// A number in the body that counts the bytes of some data.
struct Count {
    range: Range<usize>,
    notation: Notation,
    data: Range<usize>,
}

impl<'r> Finder<'r> {
    /// For the tensors of a request.
    pub(super) fn new(request: &Request<'r>, shape: &'r Shape, limits: &'r Limits) -> Self {
        Self {
            body: request.body,
            tensors: shape.tensors.as_ref(),
            limits,
            found: Found::default(),
            counts: Vec::new(),
        }
    }

    /// Notes a number that counts the bytes of some data.
    pub(super) fn count(&mut self, range: Range<usize>, notation: Notation, data: Range<usize>) {
        self.counts.push(Count {
            range,
            notation,
            data,
        });
    }

    /// The tensors that the JSON describes; binary data starts at `data`.
    fn described(&mut self, json: &[u8], data: usize) -> Result<(), SlotError> {
        let document = Document::read(json)?;
        let inference: Inference = serde_json::from_str(document.root()?.get())
            .map_err(|error| wrong(error.to_string()))?;
        let mut at = data;
        for text in inference.inputs {
            let input: Described =
                serde_json::from_str(text.get()).map_err(|error| wrong(error.to_string()))?;
            let digits = input.parameters.and_then(|p| p.binary_data_size);
            if let Some(digits) = digits {
                let size: usize = digits
                    .get()
                    .parse()
                    .map_err(|_| wrong(format!("binary_data_size is {}", digits.get())))?;
                let end = at.checked_add(size).filter(|&end| end <= self.body.len());
                let end = end.ok_or_else(|| {
                    wrong(format!("{size} bytes of binary data are not in the body"))
                })?;
                if self.binary(&input.datatype, &input.shape, at..end)? {
                    self.count(document.range(digits), Notation::Decimal, at..end);
                }
                at = end;
            } else if let Some(values) = input.data {
                self.json(&document, &input.datatype, &input.shape, values)?;
            }
        }
        if at != self.body.len() {
            return Err(wrong(format!(
                "{} bytes behind the binary data of its inputs",
                self.body.len() - at
            )));
        }
        Ok(())
    }

    /// What was found, in the order of the body.
    pub(super) fn finish(mut self) -> Found {
        self.found.inputs.sort_by_key(|input| input.range.start);
        self.counts.sort_by_key(|count| count.range.start);
        let (inputs, counts) = (&self.found.inputs, &self.counts);
        let place = |at: usize| inputs.partition_point(|input| input.range.start < at);
        let measures = counts.iter().enumerate().map(|(index, count)| {
            let counted = place(count.data.start)..place(count.data.end);
            let bytes = inputs[counted.clone()].iter();
            let bytes = bytes.map(|input| input.range.len()).sum::<usize>();
            let inside = counts[index + 1..].iter();
            let inside = inside.take_while(|other| other.range.start < count.data.end);
            let varints = inside.filter(|other| other.notation == Notation::Varint);
            let varints = varints.map(|other| other.range.len()).sum::<usize>();
            Measure {
                range: count.range.clone(),
                notation: count.notation,
                plus: count.data.len() - bytes - varints,
                inputs: counted,
            }
        });
        self.found.measures = measures.collect();
        self.found
    }

    /// Binary data of a tensor. Whether its length depends on what is filled in.
    pub(super) fn binary(
        &mut self,
        datatype: &str,
        shape: &[usize],
        data: Range<usize>,
    ) -> Result<bool, SlotError> {
        if datatype == "BYTES" {
            return self.byte_strings(data);
        }
        if let Some(element) = Element::named(datatype) {
            self.pixels(element, shape, data);
        }
        Ok(false)
    }

    /// Elements of type BYTES: each is its length in four bytes, then as many.
    fn byte_strings(&mut self, data: Range<usize>) -> Result<bool, SlotError> {
        let mut found = false;
        let mut at = data.start;
        while at < data.end {
            let short = || wrong("an element of type BYTES is longer than its tensor".to_owned());
            let rest = &self.body[at..data.end];
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let length = u32::from_le_bytes(*length) as usize;
            if rest.len() < length {
                return Err(short());
            }
            let range = at + 4..at + 4 + length;
            if self.file(range.clone())? {
                self.count(at..at + 4, Notation::U32, range.clone());
                found = true;
            }
            at = range.end;
        }
        Ok(found)
    }

    /// An element of type BYTES. Whether it is a photo's file.
    pub(super) fn file(&mut self, range: Range<usize>) -> Result<bool, SlotError> {
        match Form::of(&self.body[range.clone()], Text::Raw) {
            Some(form) => self.push(range, form).map(|()| true),
            None => Ok(false),
        }
    }

    /// Data in the JSON itself.
    fn json(
        &mut self,
        document: &Document,
        datatype: &str,
        shape: &[usize],
        data: &RawValue,
    ) -> Result<(), SlotError> {
        if datatype == "BYTES" {
            for element in elements(data).unwrap_or_default() {
                if let Some(Input { range, form }) = document.string(element) {
                    self.push(range, form)?;
                }
            }
            return Ok(());
        }
        let Some(element) = Element::named(datatype) else {
            return Ok(());
        };
        let Some(pictures) = self.pictures(element, shape) else {
            return Ok(());
        };
        let bytes = document.bytes(data);
        let nested = tensor::nested_dimensions(bytes).is_some();
        let tensor = |notation| Tensor {
            element,
            notation,
            ..pictures.tensor
        };
        if nested {
            let before = self.found.inputs.len();
            let tensors = Tensors {
                values: pictures.tensor.values,
                ..self.tensors.cloned().unwrap_or_default()
            };
            document.nested(data, &tensors, self.limits, &mut self.found.inputs);
            for input in &mut self.found.inputs[before..] {
                input.form = Form::Tensor(tensor(Written::Nested));
            }
            return Ok(());
        }
        let numbers = elements(data).unwrap_or_default();
        let each = pictures.tensor.len();
        if numbers.len() != pictures.count.saturating_mul(each) {
            return Ok(());
        }
        for picture in numbers.chunks_exact(each) {
            if let [first, .., last] = picture {
                let range = document.range(first).start..document.range(last).end;
                self.push(range, Form::Tensor(tensor(Written::Flat)))?;
            }
        }
        Ok(())
    }

    /// Binary data that nothing describes: a photo's file is told by its bytes before it comes
    /// here, and a tensor by what the route says of it.
    fn undescribed(&mut self) {
        if let Some((element, shape)) = self.tensors.and_then(|tensors| tensors.body.as_ref()) {
            self.pixels(*element, shape, 0..self.body.len());
        }
    }

    /// Binary numbers of pictures.
    fn pixels(&mut self, element: Element, shape: &[usize], data: Range<usize>) {
        let Some(pictures) = self.pictures(element, shape) else {
            return;
        };
        let each = pictures.tensor.len() * element.bytes();
        if data.len() != each.saturating_mul(pictures.count) {
            return;
        }
        let form = Form::Tensor(Tensor {
            element,
            ..pictures.tensor
        });
        // A further one than allowed is enough to be refused.
        for start in data.step_by(each).take(self.limits.max_slots + 1) {
            self.found.inputs.push(Input {
                range: start..start + each,
                form,
            });
        }
    }

    /// The pictures in a tensor of this shape; none if its numbers may be anything.
    fn pictures(&self, element: Element, shape: &[usize]) -> Option<tensor::Pictures> {
        let layout = self.tensors.and_then(|tensors| tensors.layout);
        let mut pictures = tensor::pictures(shape, layout, self.limits)?;
        pictures.tensor.values = match element {
            // Bytes are pixels as they are.
            Element::U8 => tensor::Values::default(),
            _ => self.tensors?.values,
        };
        Some(pictures)
    }

    fn push(&mut self, range: Range<usize>, form: Form) -> Result<(), SlotError> {
        self.found.inputs.push(Input { range, form });
        if self.found.inputs.len() > self.limits.max_slots {
            return Err(SlotError::TooMany {
                limit: self.limits.max_slots,
            });
        }
        Ok(())
    }
}

/// A tensor as the whole body, as the route describes it.
pub(super) fn body(request: &Request, shape: &Shape, limits: &Limits) -> Found {
    let mut finder = Finder::new(request, shape, limits);
    finder.undescribed();
    finder.finish()
}

pub(super) fn wrong(reason: String) -> SlotError {
    SlotError::Inference(reason)
}
