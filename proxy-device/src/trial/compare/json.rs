//! Two JSON answers as a whole.

use serde_json::Value;

/// Fields at the top that name the answer, not what it says.
const OF_THE_ANSWER: [&str; 4] = ["id", "created", "created_at", "request_id"];
/// How far numbers may be apart: this share of the larger, and this much.
const RELATIVE: f64 = 0.01;
const ABSOLUTE: f64 = 0.001;

/// Whether they are the same, but for small differences of numbers.
pub(super) fn agree(a: &Value, b: &Value) -> bool {
    let names = |value: &Value| {
        let mut value = value.clone();
        if let Value::Object(map) = &mut value {
            map.retain(|name, _| !OF_THE_ANSWER.contains(&&name[..]));
        }
        value
    };
    same(&names(a), &names(b))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_f64(), y.as_f64()) {
            (Some(x), Some(y)) => (x - y).abs() <= ABSOLUTE + RELATIVE * x.abs().max(y.abs()),
            _ => x == y,
        },
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter()
                    .all(|(name, x)| y.get(name).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_may_differ_a_little() {
        let one = json!({"id": "1", "v": [1.0, 200.0, 0.0], "name": "n"});
        for (other, expected) in [
            (
                json!({"id": "2", "v": [1.009, 201.0, 0.0005], "name": "n"}),
                true,
            ),
            (
                json!({"id": "2", "v": [1.02, 200.0, 0.0], "name": "n"}),
                false,
            ),
            (json!({"id": "2", "v": [1.0, 200.0], "name": "n"}), false),
            (
                json!({"id": "2", "v": [1.0, 200.0, 0.0], "name": "m"}),
                false,
            ),
            (
                json!({"id": "2", "v": [1.0, 200.0, 0.0], "other": "n"}),
                false,
            ),
        ] {
            assert_eq!(agree(&one, &other), expected, "{other}");
        }
    }
}
