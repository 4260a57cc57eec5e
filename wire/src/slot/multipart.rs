//! `multipart/form-data` (RFC 7578): the parts that are photos.

use std::ops::Range;

use super::{Form, Found, Input, Measure, Notation, SlotError, Text};

/// Longest multipart boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;
/// Longest header block of a multipart part.
const MAX_PART_HEADERS: usize = 16 << 10;

/// Whether a content-type announces it.
pub(super) fn is(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("multipart/form-data")
}

/// The parts that hold a photo.
pub(super) fn find(content_type: &str, body: &[u8], max_slots: usize) -> Result<Found, SlotError> {
    let boundary = boundary(content_type).ok_or(SlotError::NoBoundary)?;
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    // The first delimiter may stand at the very start, without the line break before it.
    let mut at = if body.starts_with(&delimiter[2..]) {
        delimiter.len() - 2
    } else {
        find_bytes(body, &delimiter, 0)
            .ok_or(SlotError::Multipart("the boundary does not occur"))?
            + delimiter.len()
    };
    let mut found = Found::default();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(found);
        }
        let padding = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        if !rest[padding..].starts_with(b"\r\n") {
            return Err(SlotError::Multipart("no line break after a boundary"));
        }
        // The line break that ends the boundary's line may also begin the empty line of a part
        // without headers.
        let headers = at + padding;
        let window = &body[headers..body.len().min(headers + MAX_PART_HEADERS)];
        let start = headers
            + find_bytes(window, b"\r\n\r\n", 0)
                .ok_or(SlotError::Multipart("a part's headers do not end"))?
            + 4;
        let end = find_bytes(body, &delimiter, start.saturating_sub(2))
            .ok_or(SlotError::Multipart("the last boundary is missing"))?;
        // A part without content: its boundary's line break is the one that ended its headers.
        let range = start..end.max(start);
        if let Some(form) = Form::of(&body[range.clone()], Text::Raw)
            && let Some(length) = content_length(body, headers..start, range.len())
        {
            let index = found.inputs.len();
            if index == max_slots {
                return Err(SlotError::TooMany { limit: max_slots });
            }
            found.inputs.push(Input { range, form });
            found.measures.extend(length.map(|range| Measure {
                range,
                notation: Notation::Decimal,
                inputs: index..index + 1,
                plus: 0,
            }));
        } else {
            found.hear(body, range, Text::Raw, max_slots);
        }
        at = end + delimiter.len();
    }
}

/// The boundary parameter of a multipart content-type, quoted or not.
fn boundary(content_type: &str) -> Option<String> {
    let mut rest = content_type.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(chars.next()?.1),
                    (_, other) => value.push(other),
                }
            };
            let tail = &quoted[end + 1..];
            (value, tail.split_once(';').map_or("", |(_, tail)| tail))
        } else {
            let (value, tail) = after.split_once(';').unwrap_or((after, ""));
            (value.trim().to_owned(), tail)
        };
        if name.trim().eq_ignore_ascii_case("boundary") {
            return (1..=MAX_BOUNDARY).contains(&value.len()).then_some(value);
        }
        rest = tail;
    }
}

/// The digits of a part's own `Content-Length`, if it has one. None at all if a header says
/// something of the part's bytes that another photo would make untrue: a wrong length, an encoding.
#[allow(clippy::option_option)]
fn content_length(
    body: &[u8],
    headers: Range<usize>,
    length: usize,
) -> Option<Option<Range<usize>>> {
    let mut digits = None;
    let mut at = headers.start;
    for line in body[headers].split(|&byte| byte == b'\n') {
        let name_end = line.iter().position(|&byte| byte == b':');
        let name = line[..name_end.unwrap_or(0)].trim_ascii();
        if name.eq_ignore_ascii_case(b"content-transfer-encoding")
            || name.eq_ignore_ascii_case(b"content-encoding")
        {
            return None;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = &line[name_end.map_or(0, |end| end + 1)..];
            let start = at + line.len() - value.trim_ascii_start().len();
            let value = value.trim_ascii();
            if digits.is_some() || value != length.to_string().as_bytes() {
                return None;
            }
            digits = Some(start..start + value.len());
        }
        at += line.len() + 1;
    }
    Some(digits)
}

/// First place of `needle` in `haystack` from `from` on.
fn find_bytes(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    while let Some(step) = haystack.get(at..)?.iter().position(|&byte| byte == first) {
        at += step;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}
