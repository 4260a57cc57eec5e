//! Whether two answers of a model say the same, told from the answers alone.
//!
//! - [`Preset::Top1`]: the first class is the same ([`top`]).
//! - [`Preset::Boxes`]: every confident box has one in the other answer ([`boxes`]).
//! - [`Preset::Text`]: at most one word in ten differs ([`text`]).
//! - [`Preset::Json`]: the same JSON, numbers within one per cent ([`json`]).
//! - [`Preset::Exact`]: the same bytes.
//! - [`Preset::Auto`]: the first of text, boxes and top-1 that finds something in one of the two; else
//!   JSON, and what is no JSON exactly.

mod boxes;
mod grpc;
mod json;
mod oip;
mod text;
mod top;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What about two answers has to be the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// What the answers themselves suggest.
    #[default]
    Auto,
    /// The first class.
    Top1,
    /// The boxes of a detector.
    Boxes,
    /// Words.
    Text,
    /// Everything, but for the last digits of numbers.
    Json,
    /// Every byte.
    Exact,
}

/// An answer of the model server, without content codings.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Its body.
    pub body: Bytes,
    /// Whether it is that of a call of gRPC.
    pub is_grpc: bool,
    /// Length of the JSON that the Open Inference Protocol puts before binary data.
    pub json_length: Option<usize>,
}

/// Whether two answers say the same; none where they have nothing that the preset could compare.
#[must_use]
pub fn agree(preset: Preset, a: &Answer, b: &Answer) -> Option<bool> {
    if a.body == b.body {
        return Some(true);
    }
    if preset == Preset::Exact {
        return Some(false);
    }
    let (x, y) = (read(a), read(b));
    let by_text = || text::agree(&Read::texts(&x), &Read::texts(&y));
    let values = match (&x, &y) {
        (Read::Json(x), Read::Json(y)) => Some((x, y)),
        _ => None,
    };
    let by_boxes = || values.and_then(|(x, y)| boxes::agree(x, y));
    let by_top = || values.and_then(|(x, y)| top::agree(x, y));
    let by_json = || values.map(|(x, y)| json::agree(x, y));
    match preset {
        Preset::Auto => by_text()
            .or_else(by_boxes)
            .or_else(by_top)
            .or_else(by_json)
            .or(Some(false)),
        Preset::Top1 => by_top(),
        Preset::Boxes => by_boxes(),
        Preset::Text => by_text(),
        Preset::Json => by_json(),
        Preset::Exact => Some(false),
    }
}

/// What a body turned out to be.
enum Read {
    Json(Value),
    /// One JSON after the other, as a model that streams its words sends them.
    Stream(Vec<Value>),
    Plain(String),
    Binary,
}

fn read(answer: &Answer) -> Read {
    if answer.is_grpc {
        return grpc::outputs(&answer.body).map_or(Read::Binary, Read::Json);
    }
    let length = answer.json_length.unwrap_or(answer.body.len());
    let (head, binary) = answer.body.split_at(length.min(answer.body.len()));
    let Ok(head) = std::str::from_utf8(head) else {
        return Read::Binary;
    };
    if let Ok(mut value) = serde_json::from_str::<Value>(head) {
        oip::inline(&mut value, binary);
        return Read::Json(value);
    }
    let pieces: Vec<Value> = head
        .lines()
        .map(|line| line.strip_prefix("data:").unwrap_or(line))
        .filter_map(|line| serde_json::from_str(line.trim()).ok())
        .collect();
    if pieces.is_empty() {
        Read::Plain(head.to_owned())
    } else {
        Read::Stream(pieces)
    }
}

impl Read {
    /// The words in it, none where there are none.
    fn texts(&self) -> String {
        match self {
            Self::Json(value) => text::of(value, " "),
            // Pieces of words.
            Self::Stream(pieces) => pieces.iter().map(|piece| text::of(piece, "")).collect(),
            Self::Plain(text) => text.clone(),
            Self::Binary => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer {
            body: Bytes::copy_from_slice(text.as_bytes()),
            ..Answer::default()
        }
    }

    fn verdict(preset: Preset, a: &str, b: &str) -> Option<bool> {
        let verdict = agree(preset, &answer(a), &answer(b));
        let turned = agree(preset, &answer(b), &answer(a));
        assert_eq!(verdict, turned, "{a} {b}");
        verdict
    }

    #[test]
    fn auto_takes_what_is_there() {
        for (a, b, expected) in [
            // Classes, whatever their probabilities.
            (
                r#"{"predictions":[{"class":"cat","probability":0.6},{"class":"dog","probability":0.4}]}"#,
                r#"{"predictions":[{"class":"cat","probability":0.9},{"class":"fox","probability":0.1}]}"#,
                true,
            ),
            (
                r#"[{"label":"cat","score":0.6},{"label":"dog","score":0.4}]"#,
                r#"[{"label":"dog","score":0.6},{"label":"cat","score":0.4}]"#,
                false,
            ),
            // Boxes, which have classes as well.
            (
                r#"[{"label":"cat","score":0.9,"box":{"xmin":0,"ymin":0,"xmax":10,"ymax":10}}]"#,
                r#"[{"label":"cat","score":0.8,"box":{"xmin":50,"ymin":50,"xmax":60,"ymax":60}}]"#,
                false,
            ),
            (
                r#"{"text":"one two three four five six seven eight nine ten"}"#,
                r#"{"text":"One two three four five six seven eight nine den."}"#,
                true,
            ),
            (r#"{"a":1.0,"id":"x"}"#, r#"{"a":1.001,"id":"y"}"#, true),
            (r#"{"a":1.0}"#, r#"{"a":2.0}"#, false),
            (
                "data: {\"delta\":{\"content\":\"he\"}}\n\ndata: {\"delta\":{\"content\":\"llo\"}}\n\ndata: [DONE]\n",
                "data: {\"delta\":{\"content\":\"hello\"}}\n\ndata: [DONE]\n",
                true,
            ),
            ("hello there", "hello then", false),
        ] {
            assert_eq!(verdict(Preset::Auto, a, b), Some(expected), "{a} {b}");
        }
    }

    #[test]
    fn a_preset_says_nothing_of_what_it_cannot_read() {
        for preset in [Preset::Top1, Preset::Boxes, Preset::Text] {
            assert_eq!(
                verdict(preset, r#"{"a":1}"#, r#"{"a":2}"#),
                None,
                "{preset:?}"
            );
        }
        assert_eq!(verdict(Preset::Json, "a", "b"), None);
        assert_eq!(verdict(Preset::Exact, "a", "b"), Some(false));
        assert_eq!(verdict(Preset::Exact, "a", "a"), Some(true));
        let binary = Answer {
            body: Bytes::from_static(&[0xff, 0]),
            json_length: Some(9),
            ..Answer::default()
        };
        assert_eq!(agree(Preset::Auto, &binary, &answer("{}")), Some(false));
    }

    #[test]
    fn deep_and_large_answers_end() {
        let deep = "[".repeat(100_000);
        let wide = format!("[{}1]", "1,".repeat(100_000));
        let words = "a ".repeat(100_000);
        for a in [&deep, &wide, &words] {
            for preset in [
                Preset::Auto,
                Preset::Top1,
                Preset::Boxes,
                Preset::Text,
                Preset::Json,
            ] {
                verdict(preset, a, &a.replacen(['1', 'a'], "2", 1));
            }
        }
    }
}
