//! Files written as base64 text (RFC 4648), in JSON strings and data URIs or as a whole body.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Characters of base64 in which every signature of a media type ends.
const SIGNATURE: usize = 16;

/// How the bytes of a file stand in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// As they are.
    Raw,
    /// As base64.
    Base64 {
        /// With `-` and `_` instead of `+` and `/`.
        url_safe: bool,
        /// Filled up with `=` to a multiple of four.
        padded: bool,
        /// With `\/` for `/`, as some JSON encoders write it.
        escaped: bool,
    },
}

impl Text {
    /// The bytes that `text` stands for, if it is one.
    #[must_use]
    pub fn read(self, text: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Raw => Some(Cow::Borrowed(text)),
            Self::Base64 {
                url_safe, escaped, ..
            } => {
                let unescaped = if escaped {
                    Cow::Owned(unescape(text))
                } else {
                    Cow::Borrowed(text)
                };
                engine(url_safe, true)
                    .decode(&unescaped)
                    .ok()
                    .map(Cow::Owned)
            }
        }
    }

    /// The first bytes that `text` stands for, as many as the longest signature of a media type has.
    pub(super) fn begin(self, text: &[u8]) -> Option<Cow<'_, [u8]>> {
        // Escapes make a signature longer, and base64 is read four characters at a time.
        let mut end = SIGNATURE.min(text.len());
        if let Self::Base64 { escaped: true, .. } = self {
            let mut read = 0;
            end = text
                .iter()
                .position(|&byte| {
                    read += usize::from(byte != b'\\');
                    read > SIGNATURE
                })
                .unwrap_or(text.len());
        }
        self.read(&text[..end])
    }

    /// Writes bytes in the same way.
    #[must_use]
    pub fn write(self, bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Raw => bytes,
            Self::Base64 {
                url_safe,
                padded,
                escaped,
            } => {
                let text = engine(url_safe, padded).encode(bytes);
                if escaped {
                    text.replace('/', "\\/").into_bytes()
                } else {
                    text.into_bytes()
                }
            }
        }
    }

    /// One byte for the frame.
    pub(crate) fn id(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Base64 {
                url_safe,
                padded,
                escaped,
            } => 1 | u8::from(url_safe) << 1 | u8::from(padded) << 2 | u8::from(escaped) << 3,
        }
    }

    pub(crate) fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::Raw),
            id if id & 1 == 1 && id < 16 => Some(Self::Base64 {
                url_safe: id & 2 != 0,
                padded: id & 4 != 0,
                escaped: id & 8 != 0,
            }),
            _ => None,
        }
    }
}

fn engine(url_safe: bool, padded: bool) -> GeneralPurpose {
    let alphabet = if url_safe {
        &alphabet::URL_SAFE
    } else {
        &alphabet::STANDARD
    };
    let config = GeneralPurposeConfig::new()
        .with_encode_padding(padded)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config)
}

/// `\/` becomes `/`; other escapes are no base64 and stay to be refused.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' || rest.peek() != Some(&b'/') {
            plain.push(byte);
        }
    }
    plain
}

/// How a text is base64, if it looks like it: only its letters are checked, not its meaning.
#[must_use]
pub(super) fn sniff(text: &[u8]) -> Option<Text> {
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    let letters = &text[..text.len() - padding];
    let (mut plus, mut slash, mut escaped, mut url_safe) = (false, false, 0, false);
    let mut before = 0;
    for &byte in letters {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => {}
            b'+' => plus = true,
            b'/' if before == b'\\' => {}
            b'/' => slash = true,
            b'\\' => escaped += 1,
            b'-' | b'_' => url_safe = true,
            _ => return None,
        }
        before = byte;
    }
    // A mixture would not be written again as it was.
    let mixed = (url_safe && (plus || slash || escaped > 0)) || (slash && escaped > 0);
    let whole = (letters.len() - escaped).is_multiple_of(4);
    (!letters.is_empty() && padding <= 2 && !mixed).then_some(Text::Base64 {
        url_safe,
        padded: padding > 0 || whole,
        escaped: escaped > 0,
    })
}

/// The base64 of a JSON string: all of it, or what follows `data:...;base64,`. `string` is the
/// string without its quotes.
pub(super) fn base64_of(string: &[u8]) -> Option<Range<usize>> {
    const SCHEME: &[u8] = b"data:";
    /// A media type with its parameters.
    const MAX_HEAD: usize = 256;
    if !string
        .get(..SCHEME.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
    {
        return Some(0..string.len());
    }
    let head = &string[..string.len().min(MAX_HEAD)];
    let comma = head.iter().position(|&byte| byte == b',')?;
    let marked = head[..comma].to_ascii_lowercase().ends_with(b";base64");
    marked.then_some(comma + 1..string.len())
}
