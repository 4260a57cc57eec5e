//! Answers of the Open Inference Protocol over gRPC, as the JSON that says the same.

use serde_json::{Value as Json, json};
use sidecod_wire::protobuf::{Field, Fields, Value, packed};
use sidecod_wire::slot::grpc;

use super::oip::numbers;

/// Fields of a `ModelInferResponse`.
const OUTPUTS: u64 = 5;
const RAW_CONTENTS: u64 = 6;
/// Fields of one of its outputs.
const NAME: u64 = 1;
const DATATYPE: u64 = 2;
const SHAPE: u64 = 3;
const CONTENTS: u64 = 5;
/// Fields of an output's contents.
const FP32_CONTENTS: u64 = 6;
const FP64_CONTENTS: u64 = 7;
const BYTES_CONTENTS: u64 = 8;

/// The outputs in the body of an answer; none if it is no single uncompressed message of the kind.
pub(super) fn outputs(body: &[u8]) -> Option<Json> {
    let (false, message) = grpc::message(body)? else {
        return None;
    };
    let (mut outputs, mut raw) = (Vec::new(), Vec::new());
    for field in fields(message) {
        match field? {
            (OUTPUTS, Some(bytes)) => outputs.push(output(bytes)?),
            (RAW_CONTENTS, Some(bytes)) => raw.push(bytes),
            _ => {}
        }
    }
    for (output, bytes) in outputs.iter_mut().zip(raw) {
        let datatype = output["datatype"].as_str()?;
        let data = match datatype {
            "BYTES" => strings(bytes)?,
            other => json!(numbers(other, bytes)?),
        };
        output["data"] = data;
    }
    (!outputs.is_empty()).then(|| json!({ "outputs": outputs }))
}

fn output(bytes: &[u8]) -> Option<Json> {
    let mut output = json!({});
    let mut shape = Vec::new();
    for field in Fields::of(bytes, 0..bytes.len()) {
        let Field { number, value } = field.ok()?;
        match (number, value) {
            (NAME, Value::Bytes(text)) => {
                output["name"] = String::from_utf8_lossy(&bytes[text.content]).into();
            }
            (DATATYPE, Value::Bytes(text)) => {
                output["datatype"] = String::from_utf8_lossy(&bytes[text.content]).into();
            }
            (SHAPE, Value::Number(side)) => shape.push(side),
            (SHAPE, Value::Bytes(sides)) => shape.extend(packed(&bytes[sides.content])),
            (CONTENTS, Value::Bytes(place)) => output["data"] = contents(&bytes[place.content])?,
            _ => {}
        }
    }
    output["shape"] = json!(shape);
    Some(output)
}

/// Contents that are no raw bytes.
fn contents(bytes: &[u8]) -> Option<Json> {
    let mut data = Vec::new();
    for field in fields(bytes) {
        match field? {
            (BYTES_CONTENTS, Some(text)) => data.push(String::from_utf8_lossy(text).into()),
            (FP32_CONTENTS, Some(bytes)) => {
                data.extend(numbers("FP32", bytes)?.into_iter().map(Json::from));
            }
            (FP64_CONTENTS, Some(bytes)) => {
                data.extend(numbers("FP64", bytes)?.into_iter().map(Json::from));
            }
            (_, Some(bytes)) => data.extend(packed(bytes).map(Json::from)),
            _ => {}
        }
    }
    Some(data.into())
}

/// Elements of type BYTES: each is its length in four bytes, then as many.
fn strings(mut bytes: &[u8]) -> Option<Json> {
    let mut data = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        data.push(Json::from(String::from_utf8_lossy(text)));
        bytes = rest;
    }
    Some(data.into())
}

/// The fields of a message, with their bytes where they have some; nothing in place of what is none.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Option<(u64, Option<&[u8]>)>> {
    Fields::of(bytes, 0..bytes.len()).map(|field| {
        let Field { number, value } = field.ok()?;
        let bytes = match value {
            Value::Bytes(place) => Some(&bytes[place.content]),
            _ => None,
        };
        Some((number, bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Preset, agree};
    use super::*;
    use sidecod_wire::protobuf::field;

    fn body(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    fn described(name: &str, datatype: &str, rest: &[u8]) -> Vec<u8> {
        let parts = [
            field(NAME, name.as_bytes()),
            field(DATATYPE, datatype.as_bytes()),
            field(SHAPE, &[1, 2]),
            rest.to_vec(),
        ];
        field(OUTPUTS, &parts.concat())
    }

    fn raw(scores: [f32; 2]) -> Vec<u8> {
        let numbers: Vec<u8> = scores
            .iter()
            .flat_map(|score| score.to_le_bytes())
            .collect();
        let message = [
            field(1, b"resnet"),
            described("classes", "BYTES", &[]),
            described("probabilities", "FP32", &[]),
            field(RAW_CONTENTS, b"\x04\0\0\0bear\x03\0\0\0fox"),
            field(RAW_CONTENTS, &numbers),
        ];
        body(&message.concat())
    }

    #[test]
    fn outputs_are_those_of_the_json() {
        let expected = json!({ "outputs": [
            { "name": "classes", "datatype": "BYTES", "shape": [1, 2], "data": ["bear", "fox"] },
            { "name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.75, 0.25] },
        ]});
        assert_eq!(outputs(&raw([0.75, 0.25])).unwrap(), expected);

        let texts = [
            field(BYTES_CONTENTS, b"bear"),
            field(BYTES_CONTENTS, b"fox"),
        ]
        .concat();
        let numbers: Vec<u8> = [0.75_f32, 0.25]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        let message = [
            described("classes", "BYTES", &field(CONTENTS, &texts)),
            described(
                "probabilities",
                "FP32",
                &field(CONTENTS, &field(FP32_CONTENTS, &numbers)),
            ),
        ];
        assert_eq!(outputs(&body(&message.concat())).unwrap(), expected);
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let whole = raw([0.75, 0.25]);
        for end in 0..whole.len() {
            assert_eq!(outputs(&whole[..end]), None);
        }
        let compressed = [&[1], &whole[1..]].concat();
        assert_eq!(outputs(&compressed), None);
        assert_eq!(outputs(&body(b"")), None);
    }

    #[test]
    fn answers_are_compared_by_what_they_say() {
        let answer = |body: Vec<u8>| Answer {
            body: body.into(),
            is_grpc: true,
            ..Answer::default()
        };
        let (a, b) = (answer(raw([0.75, 0.25])), answer(raw([0.7501, 0.2499])));
        assert_eq!(agree(Preset::Json, &a, &b), Some(true));
        let other = answer(raw([0.25, 0.75]));
        assert_eq!(agree(Preset::Json, &a, &other), Some(false));
        assert_eq!(agree(Preset::Exact, &a, &b), Some(false));
    }
}
