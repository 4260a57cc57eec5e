//! The words of an answer: what a model has read, heard or said.

use serde_json::Value;

/// Where words stand in JSON.
const KEYS: [&str; 9] = [
    "text",
    "content",
    "generated_text",
    "response",
    "rec_txt",
    "transcript",
    "output_text",
    "caption",
    "answer",
];
/// The largest share of words that may differ.
const MOST_ERRORS: f64 = 0.1;
/// Words of an answer; with more of them nothing is compared.
const MOST_WORDS: usize = 4000;

/// The words in a JSON, with `between` between the places where they stand.
pub(super) fn of(value: &Value, between: &str) -> String {
    let mut found = Vec::new();
    collect(value, false, &mut found);
    found.join(between)
}

fn collect<'v>(value: &'v Value, named: bool, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) if named => found.push(text),
        Value::Array(list) => list.iter().for_each(|entry| collect(entry, named, found)),
        Value::Object(map) => {
            // A transcript has its words as a whole, and again in pieces.
            if let Some(Value::String(text)) = map.get("text")
                && !text.is_empty()
            {
                found.push(text);
                return;
            }
            for (name, entry) in map {
                collect(entry, KEYS.contains(&&name[..]), found);
            }
        }
        _ => {}
    }
}

/// Whether at most one word in ten differs (words left out, put in or changed, by the words of the
/// longer text); none if there is no word in either. A text in a script that has no spaces between
/// its words is compared by characters.
pub(super) fn agree(a: &str, b: &str) -> Option<bool> {
    let by_character = a.chars().chain(b.chars()).any(is_unspaced);
    let (a, b) = (words(a, by_character), words(b, by_character));
    let longer = a.len().max(b.len());
    if longer == 0 || longer > MOST_WORDS {
        return None;
    }
    Some(distance(&a, &b) as f64 / longer as f64 <= MOST_ERRORS)
}

/// Scripts of East and South-East Asia that put no spaces between words.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Words in lower case, without what stands around them.
fn words(text: &str, by_character: bool) -> Vec<String> {
    let clean = |word: &str| {
        word.trim_matches(|c: char| !c.is_alphanumeric())
            .to_lowercase()
    };
    let words: Vec<String> = if by_character {
        let mut buffer = [0; 4];
        text.chars()
            .map(|c| clean(c.encode_utf8(&mut buffer)))
            .collect()
    } else {
        text.split_whitespace().map(clean).collect()
    };
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

/// Levenshtein's distance.
fn distance(a: &[String], b: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, word) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(word != other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes_of_model_servers() {
        for (answer, expected) in [
            // OpenAI: chat, transcription
            (
                json!({"id": "x", "model": "m", "choices": [{"message": {"role": "assistant", "content": "a cat"}}]}),
                "a cat",
            ),
            (
                json!({"text": "a cat", "segments": [{"text": "a"}, {"text": "cat"}]}),
                "a cat",
            ),
            // Ollama
            (
                json!({"model": "m", "response": "a cat", "done": true}),
                "a cat",
            ),
            (
                json!({"model": "m", "message": {"role": "assistant", "content": "a cat"}}),
                "a cat",
            ),
            // Hugging Face
            (json!([{"generated_text": "a cat"}]), "a cat"),
            // rapidocr-api
            (
                json!({"0": {"rec_txt": "a", "score": "0.9"}, "1": {"rec_txt": "cat", "score": "0.8"}}),
                "a cat",
            ),
            (json!({"predictions": [{"label": "cat", "score": 0.9}]}), ""),
        ] {
            assert_eq!(of(&answer, " "), expected, "{answer}");
        }
    }

    #[test]
    fn distances() {
        let words = |text| words(text, false);
        for (a, b, expected) in [
            ("", "a b", 2),
            ("a b c", "a b c", 0),
            ("a b c", "a x c", 1),
            ("a b c d", "b c d e", 2),
            ("The cat, sat.", "the Cat sat", 0),
        ] {
            assert_eq!(distance(&words(a), &words(b)), expected, "{a} {b}");
            assert_eq!(distance(&words(b), &words(a)), expected, "{a} {b}");
        }
    }

    #[test]
    fn one_word_in_ten_may_differ() {
        let ten = "a b c d e f g h i j";
        assert_eq!(agree(ten, "a b c d e f g h i x"), Some(true));
        assert_eq!(agree(ten, "a b c d e f g h x y"), Some(false));
        assert_eq!(agree("", " ."), None);
        assert_eq!(
            agree("一二三四五六七八九十", "一二三四五六七八九口"),
            Some(true)
        );
        assert_eq!(agree("一二三四五", "一二三四口"), Some(false));
    }
}
