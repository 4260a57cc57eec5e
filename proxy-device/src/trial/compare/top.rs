//! The first class of a classifier's answer, in the shapes that model servers use.

use serde_json::{Map, Value};

/// What a class is called, the surest name first.
const LABELS: [&str; 11] = [
    "label",
    "class",
    "class_name",
    "className",
    "name",
    "category",
    "prediction",
    "predicted_class",
    "top",
    "index",
    "class_id",
];
/// What its score is called.
const SCORES: [&str; 5] = ["score", "probability", "confidence", "prob", "conf"];
/// What lists of scores, one for each class, are called.
const LISTS: [&str; 7] = [
    "data",
    "scores",
    "probabilities",
    "logits",
    "predictions",
    "outputs",
    "output",
];

/// Whether the first classes are the same, of each input that the answers are for; none if neither
/// has a class.
pub(super) fn agree(a: &Value, b: &Value) -> Option<bool> {
    let (a, b) = (firsts(a), firsts(b));
    (!a.is_empty() || !b.is_empty()).then(|| a == b)
}

/// The first class of each input.
fn firsts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => of_list(list),
        Value::Object(map) => of_object(map),
        _ => Vec::new(),
    }
}

fn of_list(list: &[Value]) -> Vec<String> {
    let scored: Option<Vec<_>> = list.iter().map(labelled).collect();
    if let Some(best) = scored.and_then(|scored| best(scored.into_iter())) {
        return vec![best];
    }
    list.iter().flat_map(firsts).collect()
}

fn of_object(map: &Map<String, Value>) -> Vec<String> {
    if let Some(rows) = LISTS.iter().find_map(|name| rows(map, name)) {
        return rows;
    }
    // {"tabby": 0.7, "tiger": 0.2}
    let scored: Option<Vec<_>> = map
        .iter()
        .map(|(name, score)| Some((name.clone(), score.as_f64()?)))
        .collect();
    if let Some(scored) = scored.filter(|scored| {
        scored.len() > 1
            && scored.iter().all(|(_, score)| (0.0..=1.0).contains(score))
            && scored.iter().map(|(_, score)| score).sum::<f64>() < 1.01
    }) {
        return best(scored.into_iter()).into_iter().collect();
    }
    let deeper: Vec<String> = map.values().flat_map(firsts).collect();
    if !deeper.is_empty() {
        return deeper;
    }
    label(map).into_iter().collect()
}

/// An entry that has a class and a score.
fn labelled(entry: &Value) -> Option<(String, f64)> {
    let map = entry.as_object()?;
    Some((label(map)?, score(map)?))
}

pub(super) fn label(map: &Map<String, Value>) -> Option<String> {
    LABELS.iter().find_map(|name| match map.get(*name)? {
        Value::String(label) => Some(label.clone()),
        Value::Number(index) => Some(index.to_string()),
        _ => None,
    })
}

pub(super) fn score(map: &Map<String, Value>) -> Option<f64> {
    SCORES.iter().find_map(|name| number(map.get(*name)?))
}

/// A number, also one that is written as a string.
pub(super) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn best<L>(scored: impl Iterator<Item = (L, f64)>) -> Option<L> {
    scored
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(label, _)| label)
}

/// The indices of the highest scores in a list of numbers, or in each list of a list; a flat list
/// is cut into rows as the tensor's shape says.
fn rows(map: &Map<String, Value>, name: &str) -> Option<Vec<String>> {
    let list = map.get(name)?.as_array()?;
    if let Some(flat) = numbers(list) {
        let classes = map
            .get("shape")
            .and_then(|shape| shape.as_array()?.last()?.as_u64())
            .and_then(|classes| usize::try_from(classes).ok())
            .filter(|classes| *classes > 1 && flat.len().is_multiple_of(*classes));
        return flat
            .chunks(classes.unwrap_or(flat.len()))
            .map(first)
            .collect();
    }
    let lists: Option<Vec<_>> = list.iter().map(|row| numbers(row.as_array()?)).collect();
    lists?.iter().map(|row| first(row)).collect()
}

/// Two scores at least: one is no choice.
fn numbers(list: &[Value]) -> Option<Vec<f64>> {
    let numbers: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
    numbers.filter(|numbers| numbers.len() > 1)
}

fn first(row: &[f64]) -> Option<String> {
    best(row.iter().copied().enumerate()).map(|index| index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes_of_model_servers() {
        for (answer, expected) in [
            // TorchServe
            (json!({"tabby": 0.7, "tiger": 0.2}), &["tabby"][..]),
            // Hugging Face, one input and two
            (
                json!([{"label": "a", "score": 0.2}, {"label": "b", "score": 0.7}]),
                &["b"],
            ),
            (
                json!([[{"label": "a", "score": 0.9}], [{"label": "b", "score": 0.7}]]),
                &["a", "b"],
            ),
            // TensorFlow Serving
            (
                json!({"predictions": [[0.1, 0.9], [0.8, 0.2]]}),
                &["1", "0"],
            ),
            // Open Inference Protocol, flat and nested
            (
                json!({"outputs": [{"name": "y", "shape": [2, 3], "datatype": "FP32", "data": [0, 1, 2, 5, 4, 3]}]}),
                &["2", "0"],
            ),
            (
                json!({"model_name": "m", "outputs": [{"name": "y", "shape": [1, 2], "data": [[0.3, 0.7]]}]}),
                &["1"],
            ),
            // Roboflow
            (
                json!({"time": 0.1, "predictions": [{"class": "x", "confidence": 0.9}], "top": "x"}),
                &["x"],
            ),
            (json!({"label": "cat"}), &["cat"]),
            (json!({"class_id": 7}), &["7"]),
            // The demo's
            (
                json!({"model": "m", "predictions": [
                    {"class": "polar bear", "index": 296, "probability": 0.99},
                    {"class": "fox", "index": 279, "probability": 0.002}]}),
                &["polar bear"],
            ),
            (json!({"error": "no"}), &[]),
        ] {
            assert_eq!(firsts(&answer), expected, "{answer}");
        }
    }

    #[test]
    fn the_first_class_alone_counts() {
        let answer = |first, second| json!([{"label": first, "score": 0.6}, {"label": second, "score": 0.4}]);
        assert_eq!(agree(&answer("a", "b"), &answer("a", "c")), Some(true));
        assert_eq!(agree(&answer("a", "b"), &answer("b", "a")), Some(false));
        assert_eq!(agree(&answer("a", "b"), &json!([])), Some(false));
        assert_eq!(agree(&json!({}), &json!([])), None);
    }
}
