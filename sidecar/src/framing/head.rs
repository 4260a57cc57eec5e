//! The head of a request, line by line (RFC 9112, sections 2 to 6).

use memchr::memchr;

use super::Violation;
use crate::upgrade;

/// What has been seen of a head.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a field that was seen
pub(super) struct Head {
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    length: usize,
    started: bool,
    connect: bool,
    version_11: bool,
    content_length: Option<u64>,
    chunked: bool,
    hosts: usize,
    asks_upgrade: bool,
    says_upgrade: bool,
}

/// What follows a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A body of this length, and then another protocol if `upgrade`.
    Body { length: u64, upgrade: bool },
    /// A chunked body.
    Chunked { upgrade: bool },
    /// Another protocol, at once.
    Tunnel,
}

impl Head {
    /// Whether nothing has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.length == 0
    }

    /// Bytes so far.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Goes on; says how many bytes belong to the head, and what follows it if this was its end.
    pub(super) fn over(
        &mut self,
        bytes: &[u8],
    ) -> Result<(usize, Option<End>), (usize, Violation)> {
        let mut at = 0;
        while let Some(length) = memchr(b'\n', &bytes[at..]) {
            let newline = at + length;
            let end = if self.line.is_empty() {
                self.take(&bytes[at..newline])
            } else {
                self.line.extend_from_slice(&bytes[at..newline]);
                let line = std::mem::take(&mut self.line);
                self.take(&line)
            };
            let end = end.map_err(|rule| (newline, rule))?;
            self.length += newline + 1 - at;
            at = newline + 1;
            if end.is_some() {
                return Ok((at, end));
            }
        }
        self.line.extend_from_slice(&bytes[at..]);
        self.length += bytes.len() - at;
        Ok((bytes.len(), None))
    }

    /// Takes a line without its newline.
    fn take(&mut self, line: &[u8]) -> Result<Option<End>, Violation> {
        let Some(line) = line.strip_suffix(b"\r") else {
            return Err(Violation("a line ends with a bare LF"));
        };
        if memchr(b'\r', line).is_some() {
            return Err(Violation("a bare CR"));
        }
        if !self.started {
            // Section 2.2: an empty line before a request is ignored.
            if !line.is_empty() {
                self.started = true;
                self.request_line(line)?;
            }
            return Ok(None);
        }
        if line.is_empty() {
            return self.end().map(Some);
        }
        self.field(line)?;
        Ok(None)
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let mut words = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Violation("a request line that is not three words"));
        };
        if !is_token(method) {
            return Err(Violation("a method that is no token"));
        }
        // A fragment is the client's own (section 3.2); parsers drop it or keep it.
        let odd = |&byte: &u8| byte <= b' ' || byte == 0x7f || byte == b'#';
        if target.is_empty() || target.iter().any(odd) {
            return Err(Violation("a target with bytes that none may have"));
        }
        self.connect = method == b"CONNECT";
        let absolute = || target.windows(3).any(|part| part == b"://");
        if !self.connect && target[0] != b'/' && target != b"*" && !absolute() {
            return Err(Violation("a target in none of the four forms"));
        }
        self.version_11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(Violation("a version other than 1.0 and 1.1")),
        };
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Violation> {
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.content_length.is_some() {
                return Err(Violation("several Content-Length"));
            }
            self.content_length = Some(decimal(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation("a Transfer-Encoding other than one chunked"));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.asks_upgrade |= upgrade::names_protocol(value);
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.says_upgrade |= upgrade::says_upgrade(value);
        }
        Ok(())
    }

    fn end(&self) -> Result<End, Violation> {
        if self.hosts > 1 {
            return Err(Violation("several Host"));
        }
        if self.version_11 && self.hosts == 0 {
            return Err(Violation("no Host"));
        }
        if self.chunked && !self.version_11 {
            return Err(Violation("Transfer-Encoding in HTTP/1.0"));
        }
        if self.chunked && self.content_length.is_some() {
            return Err(Violation("both Content-Length and Transfer-Encoding"));
        }
        let upgrade = self.version_11 && self.asks_upgrade && self.says_upgrade;
        Ok(if self.connect {
            End::Tunnel
        } else if self.chunked {
            End::Chunked { upgrade }
        } else {
            End::Body {
                length: self.content_length.unwrap_or(0),
                upgrade,
            }
        })
    }
}

/// Name and value of a field line; a trailer's too.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err(Violation("a folded field (obs-fold)"));
    }
    let colon = memchr(b':', line).ok_or(Violation("a field without a colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(Violation("a field name that is no token"));
    }
    let is_control = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    // Without an early end, for the compiler to take many bytes at a time.
    let has_control = value
        .iter()
        .fold(false, |has, &byte| has | is_control(byte));
    if has_control {
        return Err(Violation("a control character in a field"));
    }
    Ok((name, trim(value)))
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn decimal(value: &[u8]) -> Result<u64, Violation> {
    const NO_NUMBER: Violation = Violation("a Content-Length that is no number");
    if value.is_empty() {
        return Err(NO_NUMBER);
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
        digit
            .and_then(|digit| sum.checked_mul(10)?.checked_add(digit))
            .ok_or(NO_NUMBER)
    })
}

/// The bytes that a token is made of (RFC 9110, section 5.6.2).
static TOKEN: [bool; 256] = {
    let mut is = [false; 256];
    let mut byte = 0;
    while byte < is.len() {
        is[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut other = 0;
    while other < others.len() {
        is[others[other] as usize] = true;
        other += 1;
    }
    is
};

/// Whether a token may begin with these bytes; with none it may.
#[must_use]
pub fn begins_token(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| TOKEN[usize::from(byte)])
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && begins_token(bytes)
}
