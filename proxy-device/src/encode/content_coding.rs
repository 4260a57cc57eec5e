//! Content codings of a request's body (RFC 9110, section 8.4): taken off, so that inputs can be
//! found in it. The model server then gets the body without them.

use std::borrow::Cow;
use std::io::{self, Read};

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Codings on top of each other.
const MOST: usize = 2;
/// Buffer of the brotli decoder.
const BUFFER: usize = 16 << 10;

/// One coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Zstd,
    Brotli,
}

/// The codings of a body, in the order in which they were put on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentCodings(Vec<Coding>);

/// Why a body could not be read through its codings.
#[derive(Debug, thiserror::Error)]
pub enum CodingError {
    /// Its bytes are not of the coding that it declares.
    #[error("content-encoding {coding}: {source}")]
    Damaged {
        /// The coding.
        coding: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// It is too large without them.
    #[error("the body has more than {limit} bytes without its content-encoding")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

impl ContentCodings {
    /// The codings that a `Content-Encoding` lists; none if one of them is not known here.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let names = value.split(',').map(str::trim);
        let codings = names
            .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
            .map(|name| match &name.to_ascii_lowercase()[..] {
                "gzip" | "x-gzip" => Some(Coding::Gzip),
                "deflate" => Some(Coding::Deflate),
                "zstd" => Some(Coding::Zstd),
                "br" => Some(Coding::Brotli),
                _ => None,
            });
        let codings: Vec<_> = codings.collect::<Option<_>>()?;
        (codings.len() <= MOST).then_some(Self(codings))
    }

    /// The body without them, of at most `limit` bytes.
    ///
    /// # Errors
    /// [`CodingError`].
    pub fn decode<'b>(&self, body: &'b [u8], limit: usize) -> Result<Cow<'b, [u8]>, CodingError> {
        let mut body = Cow::Borrowed(body);
        for coding in self.0.iter().rev() {
            body = Cow::Owned(coding.decode(&body, limit)?);
        }
        Ok(body)
    }
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }

    fn decode(self, bytes: &[u8], limit: usize) -> Result<Vec<u8>, CodingError> {
        let decoded = match self {
            Self::Gzip => read(MultiGzDecoder::new(bytes), limit),
            // Meant to be zlib's form; some clients send the bare stream.
            Self::Deflate => read(ZlibDecoder::new(bytes), limit)
                .or_else(|_| read(DeflateDecoder::new(bytes), limit)),
            Self::Zstd => ruzstd::decoding::StreamingDecoder::new(bytes)
                .map_err(io::Error::other)
                .and_then(|decoder| read(decoder, limit)),
            Self::Brotli => read(brotli_decompressor::Decompressor::new(bytes, BUFFER), limit),
        };
        let decoded = decoded.map_err(|source| CodingError::Damaged {
            coding: self.name(),
            source,
        })?;
        if decoded.len() > limit {
            return Err(CodingError::TooLarge { limit });
        }
        Ok(decoded)
    }
}

/// Reads one byte more than the limit at most.
fn read(decoder: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const TEXT: &[u8] = b"photos, photos and more photos";
    /// What `zstd` and `brotli` write for [`TEXT`].
    const ZSTD: &[u8] = include_bytes!("../../tests/coded/text.zst");
    const BROTLI: &[u8] = include_bytes!("../../tests/coded/text.br");

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(value: &str, body: &[u8], limit: usize) -> Result<Vec<u8>, String> {
        let codings = ContentCodings::parse(value).unwrap();
        codings
            .decode(body, limit)
            .map(Cow::into_owned)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_coding_comes_off() {
        for (value, body) in [
            ("gzip", gzip(TEXT)),
            ("X-GZIP", gzip(TEXT)),
            ("deflate", zlib(TEXT)),
            ("deflate", deflate(TEXT)),
            ("zstd", ZSTD.to_vec()),
            ("br", BROTLI.to_vec()),
            ("identity", TEXT.to_vec()),
            ("", TEXT.to_vec()),
            ("deflate, gzip", gzip(&zlib(TEXT))),
        ] {
            assert_eq!(decoded(value, &body, 1000).unwrap(), TEXT, "{value}");
        }
    }

    #[test]
    fn what_is_damaged_unknown_or_too_large_is_said() {
        for coded in [gzip(TEXT), zlib(TEXT)] {
            for len in 0..coded.len() {
                let value = if coded[0] == 0x1f { "gzip" } else { "deflate" };
                assert!(
                    decoded(value, &coded[..len], 1000).is_err(),
                    "{value} {len}"
                );
            }
        }
        for (value, coded) in [("zstd", ZSTD), ("br", BROTLI)] {
            assert!(decoded(value, &coded[..coded.len() / 2], 1000).is_err());
        }
        let bomb = gzip(&vec![0; 1 << 20]);
        assert_eq!(
            decoded("gzip", &bomb, 1000).unwrap_err(),
            "the body has more than 1000 bytes without its content-encoding"
        );
        for value in ["compress", "gzip, other", "gzip, gzip, gzip"] {
            assert_eq!(ContentCodings::parse(value), None, "{value}");
        }
    }
}
