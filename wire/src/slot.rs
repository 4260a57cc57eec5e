//! Slots: the byte ranges of a request body that hold an input.
//!
//! What is not an input is never parsed further than needed and never written anew: [`cut`] takes
//! the inputs out of the body, [`fill`] puts others in their places, and every byte between them
//! survives as it was.

use std::ops::Range;

use crate::limits::Limits;
use crate::media::MediaType;

/// Longest multipart boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;
/// Longest header block of a multipart part.
const MAX_PART_HEADERS: usize = 16 << 10;

/// Why no slots can be told for a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The content-type says multipart, but names no usable boundary.
    #[error("multipart content-type without a usable boundary")]
    NoBoundary,
    /// The body is not the multipart that its content-type announces.
    #[error("multipart body: {0}")]
    Multipart(&'static str),
    /// More inputs than allowed.
    #[error("{found} inputs in one request, limit {limit}")]
    TooMany {
        /// Inputs found before giving up.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The body is too large beside its inputs.
    #[error("body has {bytes} bytes beside its inputs, limit {limit}")]
    Skeleton {
        /// Bytes beside the inputs.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// Finds the photos in a body: the whole of a raw body, or parts of `multipart/form-data`.
///
/// The bytes decide what a photo is, not the declared type of a part. The ranges are ascending and
/// do not overlap; none means that there is no input that could be coded.
///
/// # Errors
/// [`SlotError`] where a multipart body cannot be read, or holds more than the limits allow.
pub fn find(
    content_type: Option<&str>,
    body: &[u8],
    limits: &Limits,
) -> Result<Vec<Range<usize>>, SlotError> {
    let slots = match content_type {
        Some(value) if essence(value).eq_ignore_ascii_case("multipart/form-data") => {
            let boundary = boundary(value).ok_or(SlotError::NoBoundary)?;
            multipart(&boundary, body, limits.max_slots)?
        }
        _ if MediaType::sniff(body).is_some() => std::iter::once(0..body.len()).collect(),
        _ => Vec::new(),
    };
    if slots.len() > limits.max_slots {
        return Err(SlotError::TooMany {
            found: slots.len(),
            limit: limits.max_slots,
        });
    }
    let bytes = body.len() - slots.iter().map(ExactSizeIterator::len).sum::<usize>();
    if !slots.is_empty() && bytes > limits.max_skeleton {
        return Err(SlotError::Skeleton {
            bytes,
            limit: limits.max_skeleton,
        });
    }
    Ok(slots)
}

/// The body without the bytes of its slots. `slots` must be ascending ranges inside the body, as
/// [`find`] returns them.
#[must_use]
pub fn cut(body: &[u8], slots: &[Range<usize>]) -> Vec<u8> {
    let mut skeleton = Vec::new();
    let mut from = 0;
    for slot in slots {
        skeleton.extend_from_slice(&body[from..slot.start]);
        from = slot.end;
    }
    skeleton.extend_from_slice(&body[from..]);
    skeleton
}

/// Where each slot stands in the skeleton that [`cut`] makes.
#[must_use]
pub fn offsets(slots: &[Range<usize>]) -> Vec<usize> {
    let mut removed = 0;
    slots
        .iter()
        .map(|slot| {
            let offset = slot.start - removed;
            removed += slot.len();
            offset
        })
        .collect()
}

/// The skeleton with `parts` put in at their offsets. The offsets must ascend and lie inside the
/// skeleton, as [`crate::frame::Frame::decode`] guarantees for a frame's slots.
#[must_use]
pub fn fill(skeleton: &[u8], parts: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let added: usize = parts.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut body = Vec::with_capacity(skeleton.len() + added);
    let mut from = 0;
    for (offset, bytes) in parts {
        body.extend_from_slice(&skeleton[from..*offset]);
        body.extend_from_slice(bytes);
        from = *offset;
    }
    body.extend_from_slice(&skeleton[from..]);
    body
}

/// Type and subtype of a content-type, without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
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

/// The ranges of the parts that hold a photo.
fn multipart(
    boundary: &str,
    body: &[u8],
    max_slots: usize,
) -> Result<Vec<Range<usize>>, SlotError> {
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    // The first delimiter may stand at the very start, without the line break before it.
    let mut at = if body.starts_with(&delimiter[2..]) {
        delimiter.len() - 2
    } else {
        find_bytes(body, &delimiter, 0)
            .ok_or(SlotError::Multipart("the boundary does not occur"))?
            + delimiter.len()
    };
    let mut slots = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(slots);
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
        let data = start..end.max(start);
        if !frozen(&body[headers..start]) && MediaType::sniff(&body[data.clone()]).is_some() {
            slots.push(data);
            if slots.len() > max_slots {
                return Err(SlotError::TooMany {
                    found: slots.len(),
                    limit: max_slots,
                });
            }
        }
        at = end + delimiter.len();
    }
}

/// Whether a part's headers say something of its bytes that another picture would make untrue:
/// their number (`Content-Length`) or an encoding.
fn frozen(headers: &[u8]) -> bool {
    headers.split(|&byte| byte == b'\n').any(|line| {
        let name = line
            .split(|&byte| byte == b':')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        name.eq_ignore_ascii_case(b"content-length")
            || name.eq_ignore_ascii_case(b"content-transfer-encoding")
            || name.eq_ignore_ascii_case(b"content-encoding")
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PHOTO: &[u8] = b"\xff\xd8\xff\xe0 not a whole photo \r\n--but sniffed as one";

    fn form(boundary: &str, parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (headers, data) in parts {
            body.extend_from_slice(format!("--{boundary}\r\n{headers}\r\n").as_bytes());
            body.extend_from_slice(data);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        body
    }

    fn found(content_type: &str, body: &[u8]) -> Result<Vec<Range<usize>>, SlotError> {
        find(Some(content_type), body, &Limits::default())
    }

    /// The whole of [`PHOTO`] as the only slot.
    #[allow(clippy::unnecessary_wraps)]
    fn whole() -> Result<Vec<Range<usize>>, SlotError> {
        Ok(std::iter::once(0..PHOTO.len()).collect())
    }

    #[test]
    fn raw_body_is_one_slot_if_its_bytes_are_a_photo() {
        assert_eq!(found("image/jpeg", PHOTO), whole());
        assert_eq!(found("application/octet-stream", PHOTO), whole());
        assert_eq!(find(None, PHOTO, &Limits::default()), whole());
        assert_eq!(found("image/jpeg", b"no photo"), Ok(vec![]));
        assert_eq!(found("image/jpeg", b""), Ok(vec![]));
    }

    #[test]
    fn parts_with_photos_are_slots_and_others_are_not() {
        let body = form(
            "x",
            &[
                ("Content-Disposition: form-data; name=\"min\"\r\n", b"0.5"),
                (
                    "Content-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\n",
                    PHOTO,
                ),
                ("", b""),
                ("content-disposition: form-data; name=two\r\n", PHOTO),
            ],
        );
        for header in [
            "multipart/form-data; boundary=x",
            "Multipart/Form-Data; charset=utf-8; Boundary=\"x\"",
        ] {
            let slots = found(header, &body).unwrap();
            assert_eq!(slots.len(), 2);
            for slot in slots {
                assert_eq!(&body[slot], PHOTO);
            }
        }
    }

    #[test]
    fn a_part_that_declares_its_length_or_encoding_is_left_alone() {
        for header in [
            "Content-Length: 46\r\n",
            "content-transfer-encoding: binary\r\n",
        ] {
            assert_eq!(
                found(
                    "multipart/form-data; boundary=x",
                    &form("x", &[(header, PHOTO)])
                ),
                Ok(vec![])
            );
        }
    }

    #[test]
    fn broken_multipart_is_an_error() {
        let whole = form("x", &[("A: b\r\n", PHOTO)]);
        for (content_type, body) in [
            ("multipart/form-data", &whole[..]),
            ("multipart/form-data; boundary=\"x", &whole[..]),
            ("multipart/form-data; boundary=", &whole[..]),
            ("multipart/form-data; boundary=y", &whole[..]),
            ("multipart/form-data; boundary=x", &whole[..whole.len() - 9]),
            ("multipart/form-data; boundary=x", b"--x\r\nA: b"),
            ("multipart/form-data; boundary=x", b"--x junk"),
            ("multipart/form-data; boundary=x", b""),
        ] {
            assert!(
                found(content_type, body).is_err(),
                "{content_type} {body:?}"
            );
        }
    }

    #[test]
    fn limits_hold() {
        let parts: Vec<(&str, &[u8])> = vec![("", PHOTO); 4];
        let limits = Limits {
            max_slots: 3,
            ..Limits::default()
        };
        let error = find(
            Some("multipart/form-data; boundary=x"),
            &form("x", &parts),
            &limits,
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "4 inputs in one request, limit 3");
        let limits = Limits {
            max_skeleton: 10,
            ..Limits::default()
        };
        let error = find(
            Some("multipart/form-data; boundary=x"),
            &form("x", &parts),
            &limits,
        )
        .unwrap_err();
        assert!(matches!(error, SlotError::Skeleton { limit: 10, .. }));
    }

    proptest! {
        #[test]
        fn cut_and_fill_give_the_body_back(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..20)), 0..5),
            tail in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut body = Vec::new();
            let mut slots = Vec::new();
            for (between, input) in &pieces {
                body.extend_from_slice(between);
                slots.push(body.len()..body.len() + input.len());
                body.extend_from_slice(input);
            }
            body.extend_from_slice(&tail);
            let parts: Vec<_> = offsets(&slots)
                .into_iter()
                .zip(&slots)
                .map(|(offset, slot)| (offset, body[slot.clone()].to_vec()))
                .collect();
            prop_assert_eq!(fill(&cut(&body, &slots), &parts), body);
        }

        #[test]
        fn a_form_is_found_again(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..6),
        ) {
            let data: Vec<Vec<u8>> = parts
                .iter()
                .map(|(photo, bytes)| if *photo { [PHOTO, bytes].concat() } else { [b"text", &bytes[..]].concat() })
                .collect();
            let listed: Vec<(&str, &[u8])> = data.iter().map(|d| ("Content-Disposition: form-data\r\n", &d[..])).collect();
            let body = form("b0undary-not-in-data", &listed);
            let slots = found("multipart/form-data; boundary=b0undary-not-in-data", &body).unwrap();
            let photos: Vec<&[u8]> = parts.iter().zip(&data).filter(|(p, _)| p.0).map(|(_, d)| &d[..]).collect();
            prop_assert_eq!(slots.iter().map(|s| &body[s.clone()]).collect::<Vec<_>>(), photos);
        }

        #[test]
        fn any_bytes_give_ranges_inside_the_body(mut body in prop::collection::vec(prop_oneof![Just(b'-'), Just(b'x'), Just(b'\r'), Just(b'\n'), Just(0xff), Just(0xd8)], 0..200)) {
            body.splice(0..0, *b"--x\r\n");
            if let Ok(slots) = found("multipart/form-data; boundary=x", &body) {
                let mut last = 0;
                for slot in slots {
                    prop_assert!(last <= slot.start && slot.start <= slot.end && slot.end <= body.len());
                    last = slot.end;
                }
            }
        }
    }
}
