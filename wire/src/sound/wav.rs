//! WAV files (RIFF, Microsoft and IBM, 1991): where the samples stand, and how they are written.

use std::ops::Range;

use super::{FLOAT, Samples};

/// Samples as whole numbers.
const PCM: u16 = 1;
/// Samples as floating-point numbers.
const IEEE_FLOAT: u16 = 3;
/// The format is told by the first bytes of a longer name.
const EXTENSIBLE: u16 = 0xfffe;
/// The rest of that name, for the formats that have a number.
const NUMBERED: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// A WAV file with samples as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wav {
    /// Where the samples stand, whole ones alone.
    pub range: Range<usize>,
    /// How they are written.
    pub samples: Samples,
}

impl Wav {
    /// Reads a file's chunks; none where they are not those of samples of 16 or 24 bits, or of floating-point
    /// ones of 32. The length of the samples may be longer than the file, as those who write to a pipe
    /// leave it.
    #[must_use]
    pub fn parse(file: &[u8]) -> Option<Self> {
        if !file.starts_with(b"RIFF") || file.get(8..12)? != b"WAVE" {
            return None;
        }
        let mut format = None;
        let mut at = 12;
        loop {
            let head = file.get(at..at + 8)?;
            let length = u32::from_le_bytes(*head[4..].first_chunk()?) as usize;
            let start = at + 8;
            let end = start.saturating_add(length).min(file.len());
            match &head[..4] {
                b"fmt " => format = Some(self::format(&file[start..end])?),
                b"data" => return Self::new(start..end, format?),
                _ => {}
            }
            // Chunks begin at even places.
            at = start.checked_add(length)?.checked_add(length & 1)?;
        }
    }

    fn new(range: Range<usize>, format: Samples) -> Option<Self> {
        let block = usize::from(format.channels) * usize::from(format.width);
        let count = range.len().checked_div(block)?;
        let samples = Samples {
            count: count.try_into().ok()?,
            ..format
        };
        let range = range.start..range.start + count * block;
        samples.is_valid().then_some(Self { range, samples })
    }
}

/// How samples are written, by a chunk that says it; their number is still 0.
fn format(chunk: &[u8]) -> Option<Samples> {
    let number = |at: usize| Some(u16::from_le_bytes(*chunk.get(at..)?.first_chunk()?));
    let kind = match number(0)? {
        EXTENSIBLE if chunk.get(26..40)? == NUMBERED => number(24)?,
        kind => kind,
    };
    let (channels, bits) = (number(2)?, number(14)?);
    let rate = u32::from_le_bytes(*chunk.get(4..)?.first_chunk()?);
    let width = match (kind, bits) {
        (PCM, 16) => 2,
        (PCM, 24) => 3,
        (IEEE_FLOAT, 32) => FLOAT,
        _ => return None,
    };
    // A block without gaps.
    let whole = number(12)? == channels.checked_mul(width.into())?;
    whole.then_some(Samples {
        channels: channels.try_into().ok()?,
        width,
        rate,
        count: 0,
    })
}
