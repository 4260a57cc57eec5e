//! `tables.bin`: the contexts and frequencies of a bundle.
//!
//! All numbers are little-endian:
//!
//! ```text
//! "SCT1"
//! u16 channels, i16 lowest value, u16 values with an entry of their own
//! u8  bins a channel, 1 to 16;  u8 previous channels in a context, 0 to 6
//! for each channel:
//!   4 x i8  weights of the values to the left, above, above left, above right
//!   4 x i8  weights of their magnitudes
//!   i8      weight of the magnitude at the same place, for each previous channel, nearest first
//!   i32     thresholds, ascending, one fewer than bins
//!   for each bin: u16 frequencies of the values and of the escape, each at least 1, sum 32768
//! ```

use super::context::{Context, NEIGHBOURS, Place};
use super::model::{TOTAL, Table};

const MAGIC: &[u8; 4] = b"SCT1";
const MAX_CHANNELS: usize = 1024;
const MAX_VALUES: usize = 4096;
const MAX_BINS: usize = 16;
const MAX_PREVIOUS: usize = 6;

/// Contexts and frequencies for every channel of a latent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    lowest: i16,
    values: u16,
    bins: usize,
    contexts: Vec<Context>,
    /// For each channel, for each bin: cumulative frequencies, from 0 to the total.
    cumulative: Vec<u16>,
}

/// Why bytes are no tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// The bytes do not begin as tables do.
    #[error("tables: not a tables file of this version")]
    Magic,
    /// The bytes end too early, or go on after the end.
    #[error("tables: {0} bytes too {1}", if *left > 0 { *left } else { -*left }, if *left > 0 { "long" } else { "short" })]
    Length {
        /// Bytes left, negative where some are missing.
        left: i64,
    },
    /// A number is out of its range.
    #[error("tables: {field} is {value}, expected {expected}")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i64,
        /// What it may be.
        expected: &'static str,
    },
    /// The numbers of one channel are not usable.
    #[error("tables: channel {channel}: {reason}")]
    Channel {
        /// The channel.
        channel: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Tables {
    /// Reads `tables.bin`.
    ///
    /// # Errors
    /// [`TablesError`] for bytes that are not exactly one tables file.
    pub fn parse(bytes: &[u8]) -> Result<Self, TablesError> {
        let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(TablesError::Magic);
        };
        if magic != MAGIC {
            return Err(TablesError::Magic);
        }
        let Some((&[c0, c1, l0, l1, v0, v1, bins, previous], mut rest)) =
            rest.split_first_chunk::<8>()
        else {
            return Err(TablesError::Length {
                left: rest.len() as i64 - 8,
            });
        };
        let channels = usize::from(u16::from_le_bytes([c0, c1]));
        let lowest = i16::from_le_bytes([l0, l1]);
        let values = u16::from_le_bytes([v0, v1]);
        let (bins, previous) = (usize::from(bins), usize::from(previous));
        range("channels", channels, 1..=MAX_CHANNELS, "1 to 1024")?;
        range("values", values.into(), 1..=MAX_VALUES, "1 to 4096")?;
        range("bins", bins, 1..=MAX_BINS, "1 to 16")?;
        range("previous channels", previous, 0..=MAX_PREVIOUS, "0 to 6")?;
        let highest = i32::from(lowest) + i32::from(values) - 1;
        if i32::from(lowest) < -i32::from(super::MAX_SYMBOL) || highest > super::MAX_SYMBOL.into() {
            return Err(TablesError::Range {
                field: "lowest value",
                value: lowest.into(),
                expected: "symbols up to 4095",
            });
        }
        let entries = usize::from(values) + 1;
        let channel_bytes = 2 * NEIGHBOURS + previous + 4 * (bins - 1) + 2 * bins * entries;
        let left = rest.len() as i64 - (channels * channel_bytes) as i64;
        if left != 0 {
            return Err(TablesError::Length { left });
        }
        let mut contexts = Vec::with_capacity(channels);
        let mut cumulative = Vec::with_capacity(channels * bins * (entries + 1));
        for channel in 0..channels {
            let (head, tail) = rest.split_at(channel_bytes);
            rest = tail;
            let invalid = |reason| TablesError::Channel { channel, reason };
            let (weights, head) = head.split_at(2 * NEIGHBOURS + previous);
            let (thresholds, frequencies) = head.split_at(4 * (bins - 1));
            let context = read_context(weights, thresholds);
            if !context.thresholds.is_sorted() {
                return Err(invalid("thresholds do not ascend"));
            }
            contexts.push(context);
            for table in frequencies.chunks_exact(2 * entries) {
                let mut sum = 0_u32;
                cumulative.push(0);
                for pair in table.chunks_exact(2) {
                    let frequency = u16::from_le_bytes([pair[0], pair[1]]);
                    sum += u32::from(frequency);
                    if frequency == 0 || sum > TOTAL.into() {
                        return Err(invalid("a frequency is 0, or they sum to more than 32768"));
                    }
                    cumulative.push(sum as u16);
                }
                if sum != u32::from(TOTAL) {
                    return Err(invalid("frequencies sum to less than 32768"));
                }
            }
        }
        Ok(Self {
            lowest,
            values,
            bins,
            contexts,
            cumulative,
        })
    }

    /// Channels of the latent that these tables are for.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.contexts.len()
    }

    /// The table for the symbol at `place`, given the symbols before it.
    pub(super) fn table(&self, data: &[i16], place: Place) -> Table<'_> {
        let bin = self.contexts[place.channel].bin(data, place);
        let len = usize::from(self.values) + 2;
        let start = (place.channel * self.bins + bin) * len;
        Table(&self.cumulative[start..start + len])
    }

    /// The entry that stands for values without one of their own.
    pub(super) fn escape(&self) -> u16 {
        self.values
    }

    /// The entry of a value.
    pub(super) fn entry(&self, value: i16) -> u16 {
        let entry = i32::from(value) - i32::from(self.lowest);
        u16::try_from(entry)
            .ok()
            .filter(|entry| *entry < self.values)
            .unwrap_or(self.values)
    }

    /// The value of an entry that is not the escape.
    pub(super) fn value(&self, entry: u16) -> i16 {
        self.lowest + entry as i16
    }
}

fn range(
    field: &'static str,
    value: usize,
    allowed: std::ops::RangeInclusive<usize>,
    expected: &'static str,
) -> Result<(), TablesError> {
    if allowed.contains(&value) {
        Ok(())
    } else {
        Err(TablesError::Range {
            field,
            value: value as i64,
            expected,
        })
    }
}

fn read_context(weights: &[u8], thresholds: &[u8]) -> Context {
    let weight = |&byte: &u8| i32::from(byte.cast_signed());
    let four = |from: usize| std::array::from_fn(|i| weight(&weights[from + i]));
    Context {
        value: four(0),
        magnitude: four(NEIGHBOURS),
        previous: weights[2 * NEIGHBOURS..].iter().map(weight).collect(),
        thresholds: thresholds
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn header(channels: u16, lowest: i16, values: u16, bins: u8, previous: u8) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(channels.to_le_bytes());
        bytes.extend(lowest.to_le_bytes());
        bytes.extend(values.to_le_bytes());
        bytes.extend([bins, previous]);
        bytes
    }

    /// One bin a channel, all with the same frequencies, the last one the escape's.
    pub(in crate::entropy) fn parts(channels: u16, lowest: i16, frequencies: &[u16]) -> Vec<u8> {
        let mut bytes = header(channels, lowest, frequencies.len() as u16 - 1, 1, 0);
        for _ in 0..channels {
            bytes.extend([0; 8]);
            bytes.extend(frequencies.iter().flat_map(|f| f.to_le_bytes()));
        }
        bytes
    }

    /// Frequencies of -4 to 4 and the escape that fall by `ratio` (in percent) a step from zero.
    fn falling(ratio: u32) -> Vec<u16> {
        let mut frequencies: Vec<u16> = (-4_i32..=4)
            .map(|value| (0..value.abs()).fold(4096, |f, _| f * ratio / 100).max(1) as u16)
            .collect();
        frequencies.push(64);
        frequencies[4] += TOTAL - frequencies.iter().sum::<u16>();
        frequencies
    }

    /// Three channels whose four contexts go from flat to steep with the magnitudes around.
    pub(in crate::entropy) fn laplace() -> Tables {
        let mut bytes = header(3, -4, 9, 4, 2);
        for _ in 0..3 {
            bytes.extend([0, 0, 0, 0, 2, 2, 1, 0, 3, 1]);
            bytes.extend([1_i32, 4, 12].iter().flat_map(|t| t.to_le_bytes()));
            for ratio in [10, 40, 60, 90] {
                bytes.extend(falling(ratio).iter().flat_map(|f| f.to_le_bytes()));
            }
        }
        Tables::parse(&bytes).unwrap()
    }

    pub(in crate::entropy) fn without_context(channels: u16) -> Vec<u8> {
        parts(channels, -4, &falling(40))
    }

    #[test]
    fn bad_tables_say_what_is_wrong() {
        let good = parts(2, -1, &[1000, 30_000, 1000, 768]);
        assert!(Tables::parse(&good).is_ok());
        for (change, says) in [
            (
                Box::new(|b: &mut Vec<u8>| b[3] = b'2') as Box<dyn Fn(&mut Vec<u8>)>,
                "not a tables file",
            ),
            (Box::new(|b| b.truncate(11)), "1 bytes too short"),
            (Box::new(|b| b.push(0)), "1 bytes too long"),
            (Box::new(|b| b[10] = 17), "bins is 17, expected 1 to 16"),
            (
                Box::new(|b| b[4..6].fill(0)),
                "channels is 0, expected 1 to 1024",
            ),
            (
                Box::new(|b| b[6..8].copy_from_slice(&(-4096_i16).to_le_bytes())),
                "lowest value is -4096",
            ),
            (
                Box::new(|b| b[20..22].fill(0)),
                "channel 0: a frequency is 0",
            ),
            (
                Box::new(|b| b[20] -= 1),
                "channel 0: frequencies sum to less than 32768",
            ),
        ] {
            let mut bytes = good.clone();
            change(&mut bytes);
            let error = Tables::parse(&bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{error:?} should say {says:?}");
        }
    }

    #[test]
    fn any_flipped_bit_is_tables_or_an_error() {
        let good = parts(2, -1, &[1000, 30_000, 1000, 768]);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(tables) = Tables::parse(&bytes) {
                assert_eq!(tables.channels(), 2);
            }
        }
    }
}
