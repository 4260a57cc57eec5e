//! `tables.bin`: the contexts and frequencies of a bundle, one set for each quality, one after the
//! other.
//!
//! There are two forms. The module `wide` has that of nets for pictures. All numbers are
//! little-endian. A set of the narrow form is:
//!
//! ```text
//! "SCT2"
//! u16 channels;  u8 bins a channel, 1 to 16;  u8 previous channels in a context, 0 to 6
//! for each channel:
//!   i16 lowest difference from the prediction, u16 number of those with an entry of their own
//!   4 x i8  weights in the prediction, in 64ths: left, above, above left, above right
//!   4 x i8  weights in the context of the same four values
//!   4 x i8  weights of their magnitudes
//!   3 x i8  weights of the magnitudes of left - above left, above - above left, above right - above
//!   i8      weight of the magnitude at the same place, for each previous channel, nearest first
//!   i32     thresholds, ascending, one fewer than bins
//!   for each bin: u16 frequencies of the entries and of the escape, each at least 1, sum 32768
//! ```

use super::context::{Context, DIFFERENCES, NEIGHBOURS, Place};
use super::model::{TOTAL, Table};
use super::wide::{self, Wide};

const MAGIC: &[u8; 4] = b"SCT2";
const MAX_CHANNELS: usize = 1024;
const MAX_VALUES: usize = 4096;
const MAX_BINS: usize = 16;
const MAX_PREVIOUS: usize = 6;

/// Contexts and frequencies for every channel of a latent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables(pub(super) Form);

/// How the context of a symbol is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// Of few symbols around.
    Narrow(Narrow),
    /// Of every channel around.
    Wide(Box<Wide>),
}

/// Each channel has its own context and tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Narrow {
    bins: usize,
    channels: Vec<Channel>,
    /// For each channel, for each bin: cumulative frequencies, from 0 to the total.
    cumulative: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Channel {
    context: Context,
    lowest: i16,
    values: u16,
    /// Where its frequencies begin.
    start: usize,
}

/// What a place's context says of its symbol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// Frequencies of the entries.
    pub(super) table: Table<'a>,
    /// The value of entry 0.
    pub(super) first: i32,
    /// The entry that stands for values without one of their own.
    pub(super) escape: u16,
}

impl Expected<'_> {
    /// The entry of a value.
    pub(super) fn entry(self, value: i16) -> u16 {
        let entry = i32::from(value) - self.first;
        u16::try_from(entry).map_or(self.escape, |entry| entry.min(self.escape))
    }

    /// The value of an entry that is not the escape. It may lie outside the range of symbols.
    pub(super) fn value(self, entry: u16) -> i16 {
        (self.first + i32::from(entry)) as i16
    }
}

/// Why bytes are no tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// The bytes do not begin as tables do.
    #[error("tables: not a tables file of this version")]
    Magic,
    /// The bytes end too early.
    #[error("tables: {missing} bytes too short")]
    Short {
        /// Bytes that are missing at least.
        missing: usize,
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
    /// The numbers of one level are not usable.
    #[error("tables: level {level}: {reason}")]
    Level {
        /// The level.
        level: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Tables {
    /// Reads `tables.bin`: at least one set, all of the same channels.
    ///
    /// # Errors
    /// [`TablesError`] for bytes that are not exactly some sets.
    pub fn parse_all(mut bytes: &[u8]) -> Result<Vec<Self>, TablesError> {
        let mut sets: Vec<Self> = Vec::new();
        while !bytes.is_empty() || sets.is_empty() {
            let (set, rest) = Self::read(bytes)?;
            let channels = sets.first().map_or(set.channels(), Self::channels);
            range(
                "channels",
                set.channels(),
                channels..=channels,
                "as in the set before",
            )?;
            sets.push(set);
            bytes = rest;
        }
        Ok(sets)
    }

    /// Reads one set and gives the bytes after it.
    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), TablesError> {
        let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(TablesError::Magic);
        };
        let (form, rest) = match magic {
            MAGIC => {
                let (set, rest) = Narrow::read(rest)?;
                (Form::Narrow(set), rest)
            }
            wide::MAGIC => {
                let (set, rest) = Wide::read(rest)?;
                (Form::Wide(Box::new(set)), rest)
            }
            _ => return Err(TablesError::Magic),
        };
        Ok((Self(form), rest))
    }

    /// Channels of the latent that these tables are for.
    #[must_use]
    pub fn channels(&self) -> usize {
        match &self.0 {
            Form::Narrow(set) => set.channels.len(),
            Form::Wide(set) => set.channels(),
        }
    }
}

impl Narrow {
    /// Reads one set, after its magic number, and gives the bytes after it.
    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), TablesError> {
        let (&[c0, c1, bins, previous], mut rest) = split(bytes)?;
        let count = usize::from(u16::from_le_bytes([c0, c1]));
        let (bins, previous) = (usize::from(bins), usize::from(previous));
        range("channels", count, 1..=MAX_CHANNELS, "1 to 1024")?;
        range("bins", bins, 1..=MAX_BINS, "1 to 16")?;
        range("previous channels", previous, 0..=MAX_PREVIOUS, "0 to 6")?;
        let weights_len = 3 * NEIGHBOURS + DIFFERENCES + previous;
        let mut channels = Vec::new();
        let mut cumulative = Vec::new();
        for index in 0..count {
            let (lowest, values, tail) = read_range(rest)?;
            let entries = usize::from(values) + 1;
            let (weights, tail) = split_at(tail, weights_len)?;
            let (thresholds, tail) = split_at(tail, 4 * (bins - 1))?;
            let (frequencies, tail) = split_at(tail, 2 * bins * entries)?;
            rest = tail;
            let invalid = |reason| TablesError::Channel {
                channel: index,
                reason,
            };
            let context = read_context(weights, thresholds);
            if !context.thresholds.is_sorted() {
                return Err(invalid("thresholds do not ascend"));
            }
            channels.push(Channel {
                context,
                lowest,
                values,
                start: cumulative.len(),
            });
            for table in frequencies.chunks_exact(2 * entries) {
                read_frequencies(table, &mut cumulative).map_err(invalid)?;
            }
        }
        let set = Self {
            bins,
            channels,
            cumulative,
        };
        Ok((set, rest))
    }

    /// What is to be expected at a place, from the symbols before it.
    pub(super) fn expect(&self, data: &[i16], place: Place) -> Expected<'_> {
        let channel = &self.channels[place.channel];
        let (predicted, bin) = channel.context.see(data, place);
        debug_assert!(bin < self.bins);
        let len = usize::from(channel.values) + 2;
        let start = channel.start + bin * len;
        Expected {
            table: Table(&self.cumulative[start..start + len]),
            first: i32::from(predicted) + i32::from(channel.lowest),
            escape: channel.values,
        }
    }
}

/// Reads the lowest difference and the number of those with an entry of their own.
pub(super) fn read_range(bytes: &[u8]) -> Result<(i16, u16, &[u8]), TablesError> {
    let (&[l0, l1, v0, v1], rest) = split(bytes)?;
    let lowest = i16::from_le_bytes([l0, l1]);
    let values = u16::from_le_bytes([v0, v1]);
    range("values", values.into(), 1..=MAX_VALUES, "1 to 4096")?;
    let highest = i32::from(lowest) + i32::from(values) - 1;
    let largest = i32::from(super::MAX_SYMBOL);
    if i32::from(lowest) < -largest || highest > largest {
        return Err(TablesError::Range {
            field: "lowest value",
            value: lowest.into(),
            expected: "symbols up to 4095",
        });
    }
    Ok((lowest, values, rest))
}

/// Reads the frequencies of one table as cumulative ones.
pub(super) fn read_frequencies(
    table: &[u8],
    cumulative: &mut Vec<u16>,
) -> Result<(), &'static str> {
    let mut sum = 0_u32;
    cumulative.push(0);
    for pair in table.chunks_exact(2) {
        let frequency = u16::from_le_bytes([pair[0], pair[1]]);
        sum += u32::from(frequency);
        if frequency == 0 || sum > TOTAL.into() {
            return Err("a frequency is 0, or they sum to more than 32768");
        }
        cumulative.push(sum as u16);
    }
    if sum == u32::from(TOTAL) {
        Ok(())
    } else {
        Err("frequencies sum to less than 32768")
    }
}

pub(super) fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), TablesError> {
    let missing = N.saturating_sub(bytes.len());
    bytes
        .split_first_chunk()
        .ok_or(TablesError::Short { missing })
}

pub(super) fn split_at(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), TablesError> {
    let missing = len.saturating_sub(bytes.len());
    bytes
        .split_at_checked(len)
        .ok_or(TablesError::Short { missing })
}

pub(super) fn range(
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
        predict: four(0),
        value: four(NEIGHBOURS),
        magnitude: four(2 * NEIGHBOURS),
        difference: std::array::from_fn(|i| weight(&weights[3 * NEIGHBOURS + i])),
        previous: weights[3 * NEIGHBOURS + DIFFERENCES..]
            .iter()
            .map(weight)
            .collect(),
        thresholds: thresholds
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn header(channels: u16, bins: u8, previous: u8) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(channels.to_le_bytes());
        bytes.extend([bins, previous]);
        bytes
    }

    fn entries(lowest: i16, values: u16) -> Vec<u8> {
        [lowest.to_le_bytes(), values.to_le_bytes()].concat()
    }

    /// One bin a channel, all with the same frequencies, the last one the escape's.
    pub(in crate::entropy) fn parts(channels: u16, lowest: i16, frequencies: &[u16]) -> Vec<u8> {
        let mut bytes = header(channels, 1, 0);
        for _ in 0..channels {
            bytes.extend(entries(lowest, frequencies.len() as u16 - 1));
            bytes.extend([0; 15]);
            bytes.extend(frequencies.iter().flat_map(|f| f.to_le_bytes()));
        }
        bytes
    }

    /// Frequencies of -4 to 4 and the escape that fall by `ratio` (in percent) a step from zero.
    pub(in crate::entropy) fn falling(ratio: u32) -> Vec<u16> {
        let mut frequencies: Vec<u16> = (-4_i32..=4)
            .map(|value| (0..value.abs()).fold(4096, |f, _| f * ratio / 100).max(1) as u16)
            .collect();
        frequencies.push(64);
        frequencies[4] += TOTAL - frequencies.iter().sum::<u16>();
        frequencies
    }

    /// Three channels whose four contexts go from flat to steep with the magnitudes around; the
    /// first one codes the difference from a prediction.
    pub(in crate::entropy) fn laplace() -> Tables {
        let mut bytes = header(3, 4, 2);
        for channel in 0..3 {
            bytes.extend(entries(-4, 9));
            bytes.extend(if channel == 0 {
                [40, 40, -16_i8 as u8, 0]
            } else {
                [0; 4]
            });
            bytes.extend([0, 0, 0, 0, 2, 2, 1, 0, 1, 0, 1, 3, 1]);
            bytes.extend([1_i32, 4, 12].iter().flat_map(|t| t.to_le_bytes()));
            for ratio in [10, 40, 60, 90] {
                bytes.extend(falling(ratio).iter().flat_map(|f| f.to_le_bytes()));
            }
        }
        Tables::parse_all(&bytes).unwrap().remove(0)
    }

    pub(in crate::entropy) fn without_context(channels: u16) -> Vec<u8> {
        parts(channels, -4, &falling(40))
    }

    #[test]
    fn bad_tables_say_what_is_wrong() {
        let good = parts(2, -1, &[1000, 30_000, 1000, 768]);
        assert_eq!(Tables::parse_all(&good).unwrap().len(), 1);
        let twice = [good.clone(), good.clone()].concat();
        assert_eq!(Tables::parse_all(&twice).unwrap().len(), 2);
        for (change, says) in [
            (
                Box::new(|b: &mut Vec<u8>| b[3] = b'1') as Box<dyn Fn(&mut Vec<u8>)>,
                "not a tables file",
            ),
            (Box::new(Vec::clear), "not a tables file"),
            (Box::new(|b| b.truncate(11)), "1 bytes too short"),
            (Box::new(|b| b.push(0)), "not a tables file"),
            (
                Box::new(|b| b.extend(parts(3, -1, &[1000, 30_000, 1000, 768]))),
                "channels is 3, expected as in the set before",
            ),
            (Box::new(|b| b[6] = 17), "bins is 17, expected 1 to 16"),
            (
                Box::new(|b| b[4..6].fill(0)),
                "channels is 0, expected 1 to 1024",
            ),
            (
                Box::new(|b| b[8..10].copy_from_slice(&(-4096_i16).to_le_bytes())),
                "lowest value is -4096",
            ),
            (
                Box::new(|b| b[27..29].fill(0)),
                "channel 0: a frequency is 0",
            ),
            (
                Box::new(|b| b[27] -= 1),
                "channel 0: frequencies sum to less than 32768",
            ),
        ] {
            let mut bytes = good.clone();
            change(&mut bytes);
            let error = Tables::parse_all(&bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{error:?} should say {says:?}");
        }
    }

    #[test]
    fn any_flipped_bit_is_tables_or_an_error() {
        let good = parts(2, -1, &[1000, 30_000, 1000, 768]);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(sets) = Tables::parse_all(&bytes) {
                assert_eq!(sets[0].channels(), 2);
            }
        }
    }
}
