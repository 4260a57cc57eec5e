//! From a model's outputs to the text that the app expects.

use serde::Deserialize;

/// How an answer is written.
///
/// In `body`, `$top` stands for the first `top` items, `$values` for all numbers, both with commas
/// between; in `item`, `$label` for the label as a JSON string, `$index` for the output's index and
/// `$value` for its number. All else is taken as it stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// `Content-Type` of the answer.
    pub content_type: String,
    /// What is done with the outputs first.
    pub values: Scale,
    /// Outputs that are listed, the greatest first.
    pub top: usize,
    /// The text.
    pub body: String,
    /// One of the outputs in it.
    pub item: String,
}

/// What is done with a model's outputs before they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Nothing.
    None,
    /// Probabilities that sum to 1.
    Softmax,
    /// A probability of its own for each.
    Sigmoid,
}

/// The names of the outputs, by their index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<String>);

/// A file is no list of labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// It is not UTF-8.
    #[error("not UTF-8 text")]
    Text,
    /// It has another number of lines than the model has outputs.
    #[error("{lines} lines, the model has {outputs} outputs")]
    Number {
        /// Lines.
        lines: usize,
        /// Outputs.
        outputs: usize,
    },
}

impl Labels {
    /// Reads a file with one label a line.
    ///
    /// # Errors
    /// [`LabelsError`].
    pub fn parse(file: &[u8], outputs: usize) -> Result<Self, LabelsError> {
        let text = std::str::from_utf8(file).map_err(|_| LabelsError::Text)?;
        let labels: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        if labels.len() == outputs {
            return Ok(Self(labels));
        }
        Err(LabelsError::Number {
            lines: labels.len(),
            outputs,
        })
    }
}

impl Answer {
    /// The text for the model's outputs. Without labels, an index is its own label.
    #[must_use]
    pub fn text(&self, outputs: &[f32], labels: &Labels) -> String {
        let values = scaled(self.values, outputs);
        fill(&self.body, |name| match name {
            "values" => Some(join(values.iter().copied().map(number))),
            "top" => Some(self.items(&values, labels)),
            _ => None,
        })
    }

    fn items(&self, values: &[f32], labels: &Labels) -> String {
        let mut order: Vec<usize> = (0..values.len()).collect();
        // Stable: of equals the first comes first.
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        order.truncate(self.top);
        join(order.into_iter().map(|index| {
            fill(&self.item, |name| match name {
                "label" => Some(label(labels, index)),
                "index" => Some(index.to_string()),
                "value" => Some(number(values[index])),
                _ => None,
            })
        }))
    }
}

fn label(labels: &Labels, index: usize) -> String {
    let text = labels.0.get(index).cloned();
    serde_json::Value::String(text.unwrap_or_else(|| index.to_string())).to_string()
}

/// The shortest digits that give the number back; null for what is none.
fn number(value: f32) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// A text with what stands for each `$name` in it.
fn fill(template: &str, known: impl Fn(&str) -> Option<String>) -> String {
    let mut text = String::with_capacity(template.len());
    let mut parts = template.split('$');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_lowercase());
        let (name, rest) = part.split_at(end.unwrap_or(part.len()));
        if let Some(value) = known(name) {
            text.push_str(&value);
        } else {
            text.push('$');
            text.push_str(name);
        }
        text.push_str(rest);
    }
    text
}

fn scaled(scale: Scale, outputs: &[f32]) -> Vec<f32> {
    match scale {
        Scale::None => outputs.to_vec(),
        Scale::Sigmoid => outputs.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect(),
        Scale::Softmax => {
            let greatest = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = outputs.iter().map(|v| (v - greatest).exp()).collect();
            let sum: f32 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(values: Scale, body: &str) -> Answer {
        Answer {
            content_type: "application/json".into(),
            values,
            top: 2,
            body: body.into(),
            item: r#"{"class":$label,"index":$index,"p":$value}"#.into(),
        }
    }

    fn labels() -> Labels {
        Labels::parse(b"a \"cat\"\n$values\nc\n", 3).unwrap()
    }

    #[test]
    fn the_greatest_come_first_with_their_labels() {
        let text = answer(Scale::None, r#"{"m":"$x $","top":[$top]}"#)
            .text(&[1.0, 2.5, f32::NEG_INFINITY], &labels());
        assert_eq!(
            text,
            r#"{"m":"$x $","top":[{"class":"$values","index":1,"p":2.5},{"class":"a \"cat\"","index":0,"p":1.0}]}"#
        );
        let text = answer(Scale::None, "$top").text(&[3.0], &Labels::default());
        assert_eq!(text, r#"{"class":"0","index":0,"p":3.0}"#);
    }

    #[test]
    fn outputs_are_scaled() {
        let text = answer(Scale::Softmax, "[$values]").text(&[1000.0, 1000.0, -1000.0], &labels());
        assert_eq!(text, "[0.5,0.5,0.0]");
        let text = answer(Scale::Sigmoid, "[$values]").text(&[0.0, 100.0, -100.0], &labels());
        assert!(text.starts_with("[0.5,1.0,"), "{text}");
        let text = answer(Scale::None, "[$values]").text(&[f32::NAN], &labels());
        assert_eq!(text, "[null]");
    }

    #[test]
    fn labels_have_to_be_as_many_as_outputs() {
        assert_eq!(
            Labels::parse(b"a\nb", 3).unwrap_err().to_string(),
            "2 lines, the model has 3 outputs"
        );
        assert_eq!(Labels::parse(b"\xff", 1), Err(LabelsError::Text));
    }

    proptest! {
        #[test]
        fn any_outputs_and_labels_make_json(outputs in prop::collection::vec(any::<f32>(), 1..9), names in prop::collection::vec("[^\r\n]*", 9)) {
            let labels = Labels(names);
            for scale in [Scale::None, Scale::Softmax, Scale::Sigmoid] {
                let text = answer(scale, r#"{"all":[$values],"top":[$top]}"#).text(&outputs, &labels);
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(json["all"].as_array().unwrap().len(), outputs.len());
                prop_assert_eq!(json["top"].as_array().unwrap().len(), outputs.len().min(2));
            }
        }
    }
}
