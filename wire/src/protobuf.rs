//! Messages of protocol buffers, read without their definitions: the fields by their numbers, and
//! where their values stand (<https://protobuf.dev/programming-guides/encoding/>).

use std::ops::Range;

/// Bytes of the longest varint: 64 bits, seven in each.
const LONGEST: usize = 10;

/// A field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its number in the message's definition.
    pub number: u64,
    /// Its value.
    pub value: Value,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A varint.
    Number(u64),
    /// Four or eight bytes, little-endian.
    Fixed(Range<usize>),
    /// A string, bytes, a message, or packed numbers.
    Bytes(Prefixed),
}

/// Bytes behind a varint that says how many they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefixed {
    /// Where the varint stands.
    pub length: Range<usize>,
    /// Where the bytes stand.
    pub content: Range<usize>,
}

/// Bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no message of protocol buffers: {reason} at byte {at}")]
pub struct ProtobufError {
    /// What is wrong.
    pub reason: &'static str,
    /// Where.
    pub at: usize,
}

/// The fields of a message, in their order. Ends with the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    /// Those of the message that stands in a range of some bytes; nothing if the range does not lie in
    /// them. Places are counted from the first of the bytes.
    #[must_use]
    pub fn of(bytes: &'a [u8], message: Range<usize>) -> Self {
        let end = message.end.min(bytes.len());
        Self {
            bytes,
            at: message.start.min(end),
            end,
        }
    }

    fn read(&mut self) -> Result<Field, ProtobufError> {
        let begin = self.at;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Fixed(self.take(8)?),
            2 => Value::Bytes(self.prefixed()?),
            5 => Value::Fixed(self.take(4)?),
            _ => return Err(wrong("an unknown type", begin)),
        };
        Ok(Field {
            number: tag >> 3,
            value,
        })
    }

    fn prefixed(&mut self) -> Result<Prefixed, ProtobufError> {
        let begin = self.at;
        let bytes = self.varint()?;
        let length = begin..self.at;
        // Who writes it anew writes the shortest form, and all else is to stay as it was.
        if length.len() != width(bytes) {
            return Err(wrong("a length that is longer than it has to be", begin));
        }
        let content = self.take(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        Ok(Prefixed { length, content })
    }

    fn take(&mut self, bytes: usize) -> Result<Range<usize>, ProtobufError> {
        if bytes > self.end - self.at {
            return Err(wrong("a value that is not all there", self.at));
        }
        let range = self.at..self.at + bytes;
        self.at = range.end;
        Ok(range)
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let (value, bytes) = varint(&self.bytes[self.at..self.end])
            .ok_or_else(|| wrong("a number that does not end", self.at))?;
        self.at += bytes;
        Ok(value)
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.end {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.at = self.end;
        }
        Some(field)
    }
}

/// The varint at the start of some bytes, and how many of them it takes; none if it does not end, or
/// has more than 64 bits.
#[must_use]
pub fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(LONGEST).enumerate() {
        if index + 1 == LONGEST && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// The varints that a repeated field has packed into its bytes.
pub fn packed(mut bytes: &[u8]) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let (value, width) = varint(bytes)?;
        bytes = &bytes[width..];
        Some(value)
    })
}

/// Appends a varint in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes, of a string or of a message, as it stands in a message.
#[must_use]
pub fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + LONGEST);
    put_varint(&mut out, number << 3 | 2);
    put_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

/// Bytes of a varint in its shortest form.
#[must_use]
pub fn width(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn wrong(reason: &'static str, at: usize) -> ProtobufError {
    ProtobufError { reason, at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Vec<Field>, String> {
        let fields = Fields::of(bytes, 0..bytes.len());
        fields
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    }

    /// The example of the encoding's documentation, a string, and numbers of fixed size.
    #[test]
    fn fields_are_told_by_their_numbers() {
        let bytes = [
            &b"\x08\x96\x01"[..],
            &field(2, b"testing"),
            b"\x1d\x00\x00\x80\x3f",
            b"\x21\x00\x00\x00\x00\x00\x00\xf0\x3f",
        ]
        .concat();
        let field = |number, value| Field { number, value };
        let text = Prefixed {
            length: 4..5,
            content: 5..12,
        };
        assert_eq!(
            all(&bytes).unwrap(),
            [
                field(1, Value::Number(150)),
                field(2, Value::Bytes(text)),
                field(3, Value::Fixed(13..17)),
                field(4, Value::Fixed(18..26)),
            ]
        );
        let nested: Vec<_> = Fields::of(&bytes, 0..3).collect();
        assert_eq!(nested, [Ok(field(1, Value::Number(150)))]);
    }

    #[test]
    fn what_is_no_message_is_said() {
        for (bytes, said) in [
            (&b"\x08"[..], "a number that does not end at byte 1"),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
                "a number that does not end at byte 1",
            ),
            (
                b"\x12\x08testing",
                "a value that is not all there at byte 2",
            ),
            (
                b"\x12\x87\x00testing",
                "a length that is longer than it has to be at byte 1",
            ),
            (b"\x0b", "an unknown type at byte 0"),
        ] {
            let expected = format!("no message of protocol buffers: {said}");
            assert_eq!(all(bytes), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn varints_come_back(value in any::<u64>(), shift in 0..64_u32, junk in any::<u8>()) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), width(value));
            bytes.push(junk);
            prop_assert_eq!(varint(&bytes), Some((value, bytes.len() - 1)));
        }

        #[test]
        fn any_bytes_give_places_inside_them(bytes in prop::collection::vec(any::<u8>(), 0..60), from in 0..70_usize, to in 0..70_usize) {
            for field in Fields::of(&bytes, from..to).flatten() {
                if let Value::Bytes(Prefixed { content: place, .. }) | Value::Fixed(place) = field.value {
                    prop_assert!(from <= place.start && place.start <= place.end && place.end <= to.min(bytes.len()));
                }
            }
        }
    }
}
