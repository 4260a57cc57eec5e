//! Sounds as bytes and as samples.
//!
//! Of the types of files that are [told](SoundType), those with samples as they are ([`wav`]) are coded:
//! as FLAC, which loses nothing, or as Opus, where a route asks for it; samples that the one does not
//! take cross as they are. What stands in the file before and behind the samples crosses as it is, so
//! that the edge writes the same file again, but for Opus to the last bit. The other types are
//! compressed already.

mod flac;
mod kind;
mod opus;
mod wav;

use std::fmt;
use std::str::FromStr;

use crate::limits::Limits;

pub use kind::SoundType;
pub use wav::Wav;

/// Bytes of a sample that is a floating-point number.
const FLOAT: u8 = 4;

/// Kilobits a second that Opus takes.
const OPUS_KBITS: std::ops::RangeInclusive<u16> = 6..=510;

/// How the samples of sounds are coded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SoundCodec {
    /// Without loss.
    #[default]
    Flac,
    /// Opus, of so many kilobits a second, all channels together. Where it has no sampling rate that is
    /// near enough, or there are more than two channels: FLAC.
    Opus(u16),
}

impl FromStr for SoundCodec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "flac" {
            return Ok(Self::Flac);
        }
        let kbits = text.strip_prefix("opus:").map(str::parse);
        match kbits {
            Some(Ok(kbits)) if OPUS_KBITS.contains(&kbits) => Ok(Self::Opus(kbits)),
            _ => Err(format!(
                "{text} is neither flac nor opus:{} to opus:{}, of so many kilobits a second",
                OPUS_KBITS.start(),
                OPUS_KBITS.end()
            )),
        }
    }
}

impl fmt::Display for SoundCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flac => write!(f, "flac"),
            Self::Opus(kbits) => write!(f, "opus:{kbits}"),
        }
    }
}

/// How samples are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples {
    /// Channels, whose samples take turns; 1 to 8.
    pub channels: u8,
    /// Bytes of a sample, little-endian: 2 or 3, a signed number; 4, a floating-point number, 1 of which
    /// is full scale.
    pub width: u8,
    /// Samples of a channel in a second, at most 96,000.
    pub rate: u32,
    /// Samples of each channel, at least 1.
    pub count: u32,
}

impl Samples {
    /// Samples of all channels together.
    #[must_use]
    pub fn all(&self) -> u64 {
        u64::from(self.count) * u64::from(self.channels)
    }

    /// Bytes that they take in a file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.all() * u64::from(self.width)
    }

    /// Whether there may be so many.
    ///
    /// # Errors
    /// [`SoundError::TooLarge`].
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), SoundError> {
        let (value, limit) = (self.all(), limits.max_samples);
        if value > limit {
            let what = "samples";
            return Err(SoundError::TooLarge { what, value, limit });
        }
        Ok(())
    }

    /// Whether there can be such.
    pub(crate) fn is_valid(&self) -> bool {
        (1..=8).contains(&self.channels)
            && (2..=FLOAT).contains(&self.width)
            && (1..=flac::MAX_RATE).contains(&self.rate)
            && self.count > 0
    }
}

/// The code of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// A FLAC stream.
    Flac(Vec<u8>),
    /// Packets of Opus: how many samples of each channel come before the first, then each packet, all
    /// numbers as varints.
    Opus(Vec<u8>),
    /// The samples as they stand in the file.
    Pcm(Vec<u8>),
}

impl Code {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Flac(bytes) | Self::Opus(bytes) | Self::Pcm(bytes) => bytes,
        }
    }

    /// The codec's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Flac(_) => "FLAC",
            Self::Opus(_) => "Opus",
            Self::Pcm(_) => "PCM",
        }
    }
}

/// A sound's file with its samples coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// What stands before the samples.
    pub head: Vec<u8>,
    /// What stands behind them.
    pub tail: Vec<u8>,
    /// How they are written.
    pub samples: Samples,
    /// Their code.
    pub code: Code,
}

/// Why a sound is not coded, or not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SoundError {
    /// It is no WAV file with samples of 16, 24 or 32 bits.
    #[error("no WAV file with samples of 16, 24 or 32 bits")]
    Unsupported,
    /// It is longer than the limits allow, or its code is.
    #[error("sound has {value} {what}, limit {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A codec says no.
    #[error("{codec}: {reason}")]
    Codec {
        /// The codec.
        codec: &'static str,
        /// What it said.
        reason: String,
    },
}

impl Sound {
    /// Codes the samples of a file.
    ///
    /// # Errors
    /// [`SoundError`].
    pub fn of(file: &[u8], codec: SoundCodec, limits: &Limits) -> Result<Self, SoundError> {
        let wav = Wav::parse(file).ok_or(SoundError::Unsupported)?;
        let samples = wav.samples;
        samples.check(limits)?;
        let bytes = &file[wav.range.clone()];
        let code = match codec {
            SoundCodec::Opus(kbits) if opus::takes(bytes, &samples) => {
                Code::Opus(opus::encode(bytes, &samples, kbits)?)
            }
            _ => match flac::bits(bytes, &samples) {
                Some(bits) => Code::Flac(flac::encode(bytes, &samples, bits)?),
                None => Code::Pcm(bytes.to_vec()),
            },
        };
        let (value, limit) = (code.bytes().len() as u64, limits.max_code as u64);
        if value > limit {
            let what = "bytes of code";
            return Err(SoundError::TooLarge { what, value, limit });
        }
        Ok(Self {
            head: file[..wav.range.start].to_vec(),
            tail: file[wav.range.end..].to_vec(),
            samples,
            code,
        })
    }

    /// The file, as long as it was. Takes as much memory as [`Samples::bytes`] says.
    ///
    /// # Errors
    /// [`SoundError`] where the code is damaged, or not that of so many samples.
    pub fn file(&self) -> Result<Vec<u8>, SoundError> {
        let bytes = self.samples.bytes() as usize;
        let mut file = Vec::with_capacity(self.head.len() + bytes + self.tail.len());
        file.extend_from_slice(&self.head);
        match &self.code {
            Code::Flac(code) => flac::decode(code, &self.samples, &mut file)?,
            Code::Opus(code) => opus::decode(code, &self.samples, &mut file)?,
            Code::Pcm(code) if code.len() == bytes => file.extend_from_slice(code),
            Code::Pcm(code) => {
                return Err(SoundError::Codec {
                    codec: "PCM",
                    reason: format!("{} bytes of samples, not {bytes}", code.len()),
                });
            }
        }
        file.extend_from_slice(&self.tail);
        Ok(file)
    }
}

#[cfg(test)]
mod tests;
