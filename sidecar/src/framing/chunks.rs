//! A chunked body, from chunk to chunk (RFC 9112, section 7.1).

use super::Violation;
use super::head::field;

/// Bytes of chunk extensions and of trailers in one body, each.
const MAX_ASIDE: usize = 16 << 10;

/// Where in a chunked body the walk is.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    /// Bytes of extensions and trailers so far.
    aside: usize,
    /// A trailer line whose end has not come yet.
    line: Vec<u8>,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Start,
    Size(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
}

impl Chunks {
    /// Goes on; says how many bytes belong to the body, and whether this was its end.
    pub(super) fn over(&mut self, bytes: &[u8]) -> Result<(usize, bool), (usize, Violation)> {
        let mut at = 0;
        while at < bytes.len() {
            if let At::Data(left) = &mut self.at {
                let rest = bytes.len() - at;
                let skip = usize::try_from(*left).unwrap_or(usize::MAX).min(rest);
                *left -= skip as u64;
                at += skip;
                if *left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            let ended = self.step(bytes[at]).map_err(|rule| (at, rule))?;
            at += 1;
            if ended {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Takes a byte that is no data; true at the end of the body.
    fn step(&mut self, byte: u8) -> Result<bool, Violation> {
        self.at = match (&self.at, byte) {
            (At::Start, _) => At::Size(digit(0, byte)?),
            (At::Size(size), b';') => At::Extension(*size),
            (At::Size(size) | At::Extension(size), b'\r') => At::SizeLf(*size),
            (At::Size(size), _) => At::Size(digit(*size, byte)?),
            (At::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => {
                let size = *size;
                self.count_aside()?;
                At::Extension(size)
            }
            (At::Extension(_), _) => return Err(Violation("a control character in an extension")),
            (At::SizeLf(0), b'\n') => At::Trailer,
            (At::SizeLf(size), b'\n') => At::Data(*size),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Start,
            (At::Trailer, b'\n') => {
                let line = std::mem::take(&mut self.line);
                let Some(line) = line.strip_suffix(b"\r") else {
                    return Err(Violation("a trailer ends with a bare LF"));
                };
                if line.is_empty() {
                    return Ok(true);
                }
                // A bare CR is a control character.
                field(line)?;
                At::Trailer
            }
            (At::Trailer, _) => {
                self.count_aside()?;
                self.line.push(byte);
                At::Trailer
            }
            _ => return Err(Violation("a chunk does not end where its size says")),
        };
        Ok(false)
    }

    fn count_aside(&mut self) -> Result<(), Violation> {
        self.aside += 1;
        if self.aside > MAX_ASIDE {
            return Err(Violation("too many bytes of chunk extensions and trailers"));
        }
        Ok(())
    }
}

/// A size with one more hexadecimal digit.
fn digit(size: u64, byte: u8) -> Result<u64, Violation> {
    let digit = char::from(byte).to_digit(16).map(u64::from);
    digit
        .and_then(|digit| size.checked_mul(16)?.checked_add(digit))
        .ok_or(Violation("a chunk size that is no hexadecimal number"))
}
