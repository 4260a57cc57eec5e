//! The Open Inference Protocol over gRPC (`KServe` v2, Triton, `MLServer`): a call of `ModelInfer`,
//! which is one message behind five bytes of gRPC. The numbers of its fields are those of the
//! protocol's `ModelInferRequest`.

use std::ops::Range;

use crate::limits::Limits;
use crate::protobuf::{Fields, Prefixed, Value, packed};

use super::oip::{Finder, wrong};
use super::{Found, Notation, Request, Shape, SlotError};

/// What the content-types of gRPC begin with.
const CONTENT_TYPE: &str = "application/grpc";
/// The only method whose calls are known here to be one message each.
const METHOD: &str = "ModelInfer";
/// What stands before a message: whether it is compressed, and its length in four bytes.
const PREFIX: usize = 5;
/// A request with more tensors, or a tensor with more dimensions, is none that is read here.
const MOST_TENSORS: usize = 1024;
const MOST_DIMENSIONS: usize = 16;

/// Fields of a `ModelInferRequest`.
const INPUTS: u64 = 5;
const RAW_CONTENTS: u64 = 7;
/// Fields of one of its inputs.
const DATATYPE: u64 = 2;
const SHAPE: u64 = 3;
const CONTENTS: u64 = 5;
/// Fields of an input's contents.
const FP32_CONTENTS: u64 = 6;
const BYTES_CONTENTS: u64 = 8;

/// Whether a content-type is one of gRPC.
#[must_use]
pub fn is(content_type: &str) -> bool {
    let start = content_type.trim_start().get(..CONTENT_TYPE.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(CONTENT_TYPE))
}

/// Whether a call of gRPC may be a stream whose end nobody should wait for, by its path. Only of
/// `ModelInfer` it is known that it is none.
#[must_use]
pub fn may_stream(path: &str) -> bool {
    path.rsplit('/').next() != Some(METHOD)
}

/// The message of a body that holds one, and whether it is compressed.
#[must_use]
pub fn message(body: &[u8]) -> Option<(bool, &[u8])> {
    let ([compressed @ (0 | 1), length @ ..], message) = body.split_first_chunk::<PREFIX>()? else {
        return None;
    };
    let whole = u32::from_be_bytes(*length) as usize == message.len();
    whole.then_some((*compressed == 1, message))
}

/// The body with its message as it is without compression; none if its message is not compressed.
///
/// # Errors
/// What `decompress` says, which is given the message.
pub fn uncompressed<E>(
    body: &[u8],
    decompress: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let Some((true, message)) = message(body) else {
        return Ok(None);
    };
    let message = decompress(message)?;
    let Ok(length) = u32::try_from(message.len()) else {
        return Ok(None);
    };
    Ok(Some([&[0][..], &length.to_be_bytes(), &message].concat()))
}

/// Finds the pictures in the tensors of a call, and the numbers that count their bytes.
pub(super) fn find(request: &Request, shape: &Shape, limits: &Limits) -> Result<Found, SlotError> {
    let body = request.body;
    match message(body) {
        Some((false, _)) => {}
        Some((true, _)) => return Err(wrong("a compressed message of gRPC".to_owned())),
        None => return Err(wrong("no single message of gRPC".to_owned())),
    }
    let message = PREFIX..body.len();
    let (mut inputs, mut raw) = (Vec::new(), Vec::new());
    for field in Fields::of(body, message.clone()) {
        let field = field.map_err(|error| wrong(error.to_string()))?;
        let list = match field.number {
            INPUTS => &mut inputs,
            RAW_CONTENTS => &mut raw,
            _ => continue,
        };
        let Value::Bytes(place) = field.value else {
            return Err(wrong("a tensor that is no message".to_owned()));
        };
        if list.len() == MOST_TENSORS {
            return Err(wrong(format!("more than {MOST_TENSORS} tensors")));
        }
        list.push(place);
    }
    // Tensors in shared memory have none, so that it could not be told whose these are.
    if !raw.is_empty() && raw.len() != inputs.len() {
        return Ok(Found::default());
    }
    let mut finder = Finder::new(request, shape, limits);
    let mut changes = false;
    let mut raw = raw.into_iter();
    for place in inputs {
        let tensor = Described::read(body, place.content.clone())?;
        changes |= match (raw.next(), tensor.contents.clone()) {
            (Some(data), None) => {
                let changes =
                    finder.binary(tensor.datatype, &tensor.shape, data.content.clone())?;
                count(&mut finder, changes, [data])
            }
            (None, Some(contents)) => {
                let changes = tensor.find(&mut finder, body, contents.content.clone())?;
                count(&mut finder, changes, [place, contents])
            }
            // Left to the server, which knows what it makes of it.
            _ => false,
        };
    }
    if changes {
        finder.count(1..PREFIX, Notation::U32BigEndian, message);
    }
    Ok(finder.finish())
}

/// Notes the lengths of what holds inputs whose length may change.
fn count<const N: usize>(finder: &mut Finder, changes: bool, places: [Prefixed; N]) -> bool {
    if changes {
        for Prefixed { length, content } in places {
            finder.count(length, Notation::Varint, content);
        }
    }
    changes
}

/// One of the tensors of a request.
struct Described<'a> {
    datatype: &'a str,
    shape: Vec<usize>,
    contents: Option<Prefixed>,
}

impl<'a> Described<'a> {
    fn read(body: &'a [u8], place: Range<usize>) -> Result<Self, SlotError> {
        let mut tensor = Self {
            datatype: "",
            shape: Vec::new(),
            contents: None,
        };
        for field in Fields::of(body, place) {
            let field = field.map_err(|error| wrong(error.to_string()))?;
            match (field.number, field.value) {
                (DATATYPE, Value::Bytes(text)) => {
                    tensor.datatype = std::str::from_utf8(&body[text.content]).unwrap_or_default();
                }
                (SHAPE, Value::Number(side)) => tensor.dimension(side)?,
                (SHAPE, Value::Bytes(sides)) => {
                    for side in packed(&body[sides.content]) {
                        tensor.dimension(side)?;
                    }
                }
                (CONTENTS, Value::Bytes(place)) if tensor.contents.is_none() => {
                    tensor.contents = Some(place);
                }
                (CONTENTS, _) => return Err(wrong("a tensor with several contents".to_owned())),
                _ => {}
            }
        }
        Ok(tensor)
    }

    fn dimension(&mut self, side: u64) -> Result<(), SlotError> {
        if self.shape.len() == MOST_DIMENSIONS {
            return Err(wrong(format!("more than {MOST_DIMENSIONS} dimensions")));
        }
        // A side of -1 is larger than any picture.
        self.shape.push(usize::try_from(side).unwrap_or(usize::MAX));
        Ok(())
    }

    /// Finds the pictures in contents that are no raw bytes. Whether their length depends on what is
    /// filled in.
    fn find(
        &self,
        finder: &mut Finder,
        body: &[u8],
        contents: Range<usize>,
    ) -> Result<bool, SlotError> {
        let mut changes = false;
        for field in Fields::of(body, contents) {
            let field = field.map_err(|error| wrong(error.to_string()))?;
            match (field.number, field.value, self.datatype) {
                (BYTES_CONTENTS, Value::Bytes(element), "BYTES") => {
                    let found = finder.file(element.content.clone())?;
                    changes |= count(finder, found, [element]);
                }
                // As they stand in raw bytes: the numbers of the encoding are little-endian as well.
                (FP32_CONTENTS, Value::Bytes(numbers), "FP32") => {
                    finder.binary(self.datatype, &self.shape, numbers.content)?;
                }
                _ => {}
            }
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::field;
    use crate::slot::{Preset, Tensors, cut, fill};
    use crate::tensor::Values;
    use proptest::prelude::*;

    const PHOTO: &[u8] = b"\xff\xd8\xff\xe0 not a whole photo";

    fn input(datatype: &str, shape: &[u8], rest: &[u8]) -> Vec<u8> {
        let parts = [
            field(1, b"picture"),
            field(DATATYPE, datatype.as_bytes()),
            field(SHAPE, shape),
            rest.to_vec(),
        ];
        field(INPUTS, &parts.concat())
    }

    fn call(fields: &[Vec<u8>]) -> Vec<u8> {
        let message = [field(1, b"resnet"), fields.concat(), field(3, b"id")].concat();
        [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
    }

    /// Elements of type BYTES as they stand in raw contents.
    fn elements(files: &[&[u8]]) -> Vec<u8> {
        let element = |file: &&[u8]| [&(file.len() as u32).to_le_bytes()[..], file].concat();
        files.iter().flat_map(element).collect()
    }

    fn search(body: &[u8]) -> Result<Found, SlotError> {
        let mut shape = Preset::Oip.shape();
        shape.tensors = Some(Tensors {
            values: Values::NAMED[1].1,
            ..Tensors::default()
        });
        let request = Request {
            body,
            content_type: Some("application/grpc"),
            json_length: None,
        };
        crate::slot::find(&request, &shape, &Limits::default())
    }

    fn texts(body: &[u8]) -> Vec<&[u8]> {
        let found = search(body).unwrap();
        let texts = found.inputs.iter();
        texts.map(|input| &body[input.range.clone()]).collect()
    }

    /// A call with its photos written in another length is the call that holds those photos.
    fn refilled(body: &[u8], with: &[Vec<u8>]) -> Vec<u8> {
        fill(&cut(body, &search(body).unwrap()), with).body
    }

    #[test]
    fn files_are_found_and_every_length_around_them_is_written_anew() {
        let small = [PHOTO, &[7; 50]].concat();
        // Across the sizes at which a varint takes a byte more.
        for length in [0, 10, 40, 200, 16_300, 70_000] {
            let other = [PHOTO, &vec![8; length]].concat();
            let raw = |file: &[u8]| {
                let text = elements(&[b"no photo", file]);
                call(&[
                    input("FP32", &[1], &[]),
                    input("BYTES", &[2], &[]),
                    field(6, &field(1, b"classes")),
                    field(RAW_CONTENTS, &1_f32.to_le_bytes()),
                    field(RAW_CONTENTS, &text),
                ])
            };
            let typed = |file: &[u8]| {
                let contents = [field(BYTES_CONTENTS, b"none"), field(BYTES_CONTENTS, file)];
                call(&[input("BYTES", &[2], &field(CONTENTS, &contents.concat()))])
            };
            for (body, expected) in [(raw(&small), raw(&other)), (typed(&small), typed(&other))] {
                assert_eq!(texts(&body), [&small[..]]);
                assert_eq!(refilled(&body, std::slice::from_ref(&small)), body);
                assert!(
                    refilled(&body, std::slice::from_ref(&other)) == expected,
                    "{length}"
                );
            }
        }
    }

    #[test]
    fn pixels_are_found_where_they_are_as_many_as_the_shape_says() {
        let numbers: Vec<u8> = (0..2 * 3 * 4 * 5_u16)
            .flat_map(|n| f32::from(n % 200).to_le_bytes())
            .collect();
        let shape = [2, 3, 4, 5];
        let raw = call(&[input("FP32", &shape, &[]), field(RAW_CONTENTS, &numbers)]);
        let typed = field(CONTENTS, &field(FP32_CONTENTS, &numbers));
        let typed = call(&[input("FP32", &shape, &typed)]);
        let halves = [&numbers[..240], &numbers[240..]];
        for body in [&raw, &typed] {
            assert_eq!(texts(body), halves);
            assert_eq!(refilled(body, &halves.map(<[u8]>::to_vec)), *body);
        }
        let short = &numbers[..4];
        for other in [
            call(&[input("FP32", &shape, &[]), field(RAW_CONTENTS, short)]),
            call(&[input("INT32", &shape, &[]), field(RAW_CONTENTS, &numbers)]),
            // Whose bytes these are is not told.
            call(&[
                input("FP32", &shape, &[]),
                input("FP32", &shape, &[]),
                field(RAW_CONTENTS, &numbers),
            ]),
            call(&[]),
        ] {
            assert!(texts(&other).is_empty());
        }
    }

    #[test]
    fn what_is_no_call_is_said() {
        let good = call(&[
            input("BYTES", &[1], &[]),
            field(RAW_CONTENTS, &elements(&[PHOTO])),
        ]);
        let two = [&good[..], &good].concat();
        let compressed = [&[1], &good[1..]].concat();
        let long = [input("BYTES", &[1; 17], &[])];
        for (body, said) in [
            (&b""[..], "no single message of gRPC"),
            (&good[..good.len() - 1], "no single message of gRPC"),
            (&two, "no single message of gRPC"),
            (&compressed, "a compressed message of gRPC"),
            (&call(&long), "more than 16 dimensions"),
            (
                &call(&vec![field(INPUTS, b""); 1025]),
                "more than 1024 tensors",
            ),
            (
                &call(&[b"\x28\x01".to_vec()]),
                "a tensor that is no message",
            ),
            (
                &call(&[b"\x3a\x7f".to_vec()]),
                "no message of protocol buffers: a value that is not all there at byte 15",
            ),
        ] {
            let error = search(body).unwrap_err().to_string();
            assert_eq!(error, format!("inference request: {said}"));
        }
    }

    #[test]
    fn a_compressed_message_is_the_same_without_compression() {
        let body = [&[1, 0, 0, 0, 3][..], b"zip"].concat();
        let plain = uncompressed(&body, |zip| Ok::<_, ()>([zip, b"ped"].concat()));
        assert_eq!(plain, Ok(Some(b"\0\0\0\0\x06zipped".to_vec())));
        assert_eq!(uncompressed(&body, |_| Err(())), Err(()));
        for other in [&body[..7], b"\0\0\0\0\x03zip", b""] {
            let plain = uncompressed(other, |_| Ok::<_, ()>(Vec::new()));
            assert_eq!(plain, Ok(None));
        }
    }

    #[test]
    fn content_types_and_methods() {
        for (content_type, grpc) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            (" application/grpc-web", true),
            ("application/json", false),
            ("application/g", false),
            ("", false),
        ] {
            assert_eq!(is(content_type), grpc, "{content_type}");
        }
        assert!(!may_stream("/inference.GRPCInferenceService/ModelInfer"));
        assert!(may_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer"
        ));
        assert!(may_stream("/chat.Chat/Talk"));
    }

    proptest! {
        #[test]
        fn any_bytes_in_a_call_give_it_back(
            at in 0_usize..300,
            removed in 0_usize..3,
            junk in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let contents = field(CONTENTS, &field(BYTES_CONTENTS, PHOTO));
            let fields = [
                input("BYTES", &[1], &contents),
                input("BYTES", &[2], &[]),
                field(RAW_CONTENTS, &elements(&[PHOTO, PHOTO])),
            ];
            for fields in [&fields[..1], &fields[1..], &fields] {
                let mut message = fields.concat();
                let at = at.min(message.len());
                let end = (at + removed).min(message.len());
                message.splice(at..end, junk.clone());
                let body = call(&[message]);
                if let Ok(found) = search(&body) {
                    let parts: Vec<_> = found.inputs.iter().map(|input| body[input.range.clone()].to_vec()).collect();
                    prop_assert_eq!(refilled(&body, &parts), body);
                }
            }
        }
    }
}
