//! Answers of the Open Inference Protocol whose tensors follow the JSON as bytes.

use serde_json::{Value, json};

/// Puts the numbers of such tensors into the JSON, where they stand in other answers. What is not
/// understood is left as it is.
pub(super) fn inline(value: &mut Value, mut binary: &[u8]) {
    let Some(outputs) = value.get_mut("outputs").and_then(Value::as_array_mut) else {
        return;
    };
    for output in outputs {
        let bytes = output.pointer("/parameters/binary_data_size");
        let bytes = bytes.and_then(Value::as_u64).unwrap_or(0);
        let Some((data, rest)) = usize::try_from(bytes)
            .ok()
            .and_then(|bytes| binary.split_at_checked(bytes))
        else {
            return;
        };
        binary = rest;
        let numbers = output
            .get("datatype")
            .and_then(Value::as_str)
            .and_then(|datatype| numbers(datatype, data));
        if let (Some(numbers), Some(output)) = (numbers, output.as_object_mut())
            && !data.is_empty()
        {
            output.insert("data".to_owned(), json!(numbers));
        }
    }
}

/// Little-endian, as the protocol says.
pub(super) fn numbers(datatype: &str, data: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(data: &[u8], number: fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks()
            .0
            .iter()
            .map(|bytes| number(*bytes))
            .collect()
    }
    Some(match datatype {
        "FP32" => each(data, |bytes| f32::from_le_bytes(bytes).into()),
        "FP64" => each(data, f64::from_le_bytes),
        "INT32" => each(data, |bytes| i32::from_le_bytes(bytes).into()),
        "INT64" => each(data, |bytes| i64::from_le_bytes(bytes) as f64),
        "UINT8" => each(data, |[byte]: [u8; 1]| byte.into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Preset, agree};
    use super::*;

    fn answer(scores: [f32; 3]) -> Answer {
        let data: Vec<u8> = scores
            .iter()
            .flat_map(|score| score.to_le_bytes())
            .collect();
        let head = json!({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3],
            "parameters": {"binary_data_size": data.len()}}]})
        .to_string();
        Answer {
            json_length: Some(head.len()),
            body: [head.into_bytes(), data].concat().into(),
            ..Answer::default()
        }
    }

    #[test]
    fn binary_tensors_are_read() {
        let one = answer([0.1, 0.7, 0.2]);
        assert_eq!(
            agree(Preset::Top1, &one, &answer([0.3, 0.4, 0.3])),
            Some(true)
        );
        assert_eq!(
            agree(Preset::Auto, &one, &answer([0.4, 0.3, 0.3])),
            Some(false)
        );
        let mut short = one.clone();
        short.body.truncate(short.body.len() - 1);
        assert_eq!(agree(Preset::Top1, &one, &short), Some(false));
    }
}
