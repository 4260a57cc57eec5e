//! The second form of `tables.bin`: a context that sees every channel.
//!
//! Two weighted sums over the symbols of the places to the left and above, and of the channels
//! before at the same place, foresee each symbol: its value, and how far off that will be. The
//! second sum chooses one of the levels; each level has frequency tables that all channels share.
//!
//! All numbers are little-endian. A set is:
//!
//! ```text
//! "SCT3"
//! u16 channels C, 1 to 256;  u16 corners K, up to C;  u8 levels L, 1 to 64;  u8 fine levels, up to L
//! for each channel c:
//!   u8   fractional bits of its weights of values, 3 to 14
//!   u8   level, below L, for each of the 232 classes of a sum of errors
//!   i16  weights of the values left (C), above (C), here (c), and, of the first channels alone,
//!        above left (K) and above right (K)
//!   i16  weights of the errors, how far off those were, left (C), above (C), here (c), and, of the
//!        own channel alone, above left and above right
//! for each level:
//!   i16  lowest difference from the foreseen value, u16 number of those with an entry of their own
//!   for each eighth of a symbol between the foreseen value and the whole number that it rounds to,
//!   from -4 to 3, or once where the level is not a fine one:
//!     u16 frequencies of the entries and of the escape, each at least 1, sum 32768
//! ```
//!
//! Sums are modulo 2^32. Symbols outside the picture count as zero. A sum below 16 is its own class,
//! a negative one counts as zero; the others are classed by their highest bit and the three below it.

use multiversion::multiversion;

use super::model::Table;
use super::sums::{Rows, Weights};
use super::tables::{Expected, TablesError, range, read_frequencies, read_range, split, split_at};
use super::{EntropyError, MAX_SYMBOL};

pub(super) const MAGIC: &[u8; 4] = b"SCT3";
const MAX_LEVELS: usize = 64;
/// Weights of one channel take room that grows with the channels.
const MAX_CHANNELS: usize = 256;
/// Classes of a sum of errors.
const CLASSES: usize = 232;
/// A foreseen value counts in this many parts of a symbol.
const PARTS: i32 = 8;
const PART_BITS: u32 = 3;
const MAX_SHIFT: u8 = 14;
/// Places that are summed together where all symbols are known.
const PLACES: usize = 4;

/// Contexts and frequencies for every channel of a latent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wide {
    channels: usize,
    fine: usize,
    /// For each channel: fractional bits of the weights of values, less those of a part.
    shifts: Vec<u8>,
    /// For each channel: the level of each class of a sum.
    classes: Vec<[u8; CLASSES]>,
    value: Weights,
    error: Weights,
    levels: Vec<Level>,
    /// For each level, for each part: cumulative frequencies, from 0 to the total.
    cumulative: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    lowest: i16,
    values: u16,
    /// Where its frequencies begin.
    start: usize,
}

impl Wide {
    /// Reads one set, after its magic number, and gives the bytes after it.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), TablesError> {
        let (&[c0, c1, k0, k1, levels, fine], mut rest) = split(bytes)?;
        let channels = usize::from(u16::from_le_bytes([c0, c1]));
        let corners = usize::from(u16::from_le_bytes([k0, k1]));
        let (levels, fine) = (usize::from(levels), usize::from(fine));
        range("channels", channels, 1..=MAX_CHANNELS, "1 to 256")?;
        range("corners", corners, 0..=channels, "at most the channels")?;
        range("levels", levels, 1..=MAX_LEVELS, "1 to 64")?;
        range("fine levels", fine, 0..=levels, "at most the levels")?;
        let mut set = Self {
            channels,
            fine,
            shifts: Vec::new(),
            classes: Vec::new(),
            value: Weights::new(channels, corners),
            error: Weights::new(channels, 0),
            levels: Vec::new(),
            cumulative: Vec::new(),
        };
        for channel in 0..channels {
            let invalid = |reason| TablesError::Channel { channel, reason };
            let (&[shift], tail) = split(rest)?;
            if !(PART_BITS as u8..=MAX_SHIFT).contains(&shift) {
                return Err(invalid("its fractional bits are not 3 to 14"));
            }
            set.shifts.push(shift - PART_BITS as u8);
            let (&classes, mut tail) = split::<CLASSES>(tail)?;
            if classes.iter().any(|&level| usize::from(level) >= levels) {
                return Err(invalid("a level is beyond the last"));
            }
            set.classes.push(classes);
            for (weights, at_corners) in [(&mut set.value, 2 * corners), (&mut set.error, 2)] {
                let (numbers, after) = split_at(tail, 2 * (2 * channels + channel + at_corners))?;
                weights.set(channel, channels, numbers);
                tail = after;
            }
            rest = tail;
        }
        for level in 0..levels {
            let (lowest, values, tail) = read_range(rest)?;
            set.levels.push(Level {
                lowest,
                values,
                start: set.cumulative.len(),
            });
            let tables = if level < fine { PARTS as usize } else { 1 };
            let entries = usize::from(values) + 1;
            let (frequencies, tail) = split_at(tail, 2 * tables * entries)?;
            rest = tail;
            for table in frequencies.chunks_exact(2 * entries) {
                read_frequencies(table, &mut set.cumulative)
                    .map_err(|reason| TablesError::Level { level, reason })?;
            }
        }
        Ok((set, rest))
    }

    /// Channels of the latent that these tables are for.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Goes through the symbols of a picture in the order of the code, and tells `write` what to expect
    /// of each. They lie channel by channel, row by row, and are in range.
    pub(super) fn write(
        &self,
        symbols: &[i16],
        height: usize,
        width: usize,
        mut write: impl FnMut(i16, Expected<'_>) -> Result<(), EntropyError>,
    ) -> Result<(), EntropyError> {
        let mut values = Rows::<PLACES>::new(&self.value, self.channels, width);
        let mut errors = Rows::<PLACES>::new(&self.error, self.channels, width);
        let mut foreseen = vec![0; self.channels * PLACES];
        for y in 0..height {
            values.next_row();
            errors.next_row();
            // All symbols are known: the sums need no order.
            for x in 0..width {
                let column = symbols[y * width + x..].iter().step_by(height * width);
                for (known, &symbol) in values.at_mut(x).iter_mut().zip(column) {
                    *known = symbol;
                }
            }
            for start in (0..width).step_by(PLACES) {
                let places = start..width.min(start + PLACES);
                values.sum_from(start);
                let each = foreseen.chunks_exact_mut(self.channels);
                for ((x, sums), foreseen) in places.clone().zip(values.sums()).zip(each) {
                    foresee_all(&self.shifts, sums, foreseen);
                    off_all(values.at(x), foreseen, errors.at_mut(x));
                }
                errors.sum_from(start);
                let each = foreseen.chunks_exact(self.channels);
                for ((x, sums), foreseen) in places.zip(errors.sums()).zip(each) {
                    let known = values.at(x).iter().zip(foreseen).zip(sums);
                    for (channel, ((&symbol, &value), &error)) in known.enumerate() {
                        write(symbol, self.expect(channel, value, error))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes through a picture in the order of the code, and has `read` say what each symbol is of which
    /// this is to be expected.
    pub(super) fn read_into(
        &self,
        symbols: &mut [i16],
        height: usize,
        width: usize,
        mut read: impl FnMut(Expected<'_>) -> Result<i16, EntropyError>,
    ) -> Result<(), EntropyError> {
        let mut values = Rows::<1>::new(&self.value, self.channels, width);
        let mut errors = Rows::<1>::new(&self.error, self.channels, width);
        for y in 0..height {
            values.next_row();
            errors.next_row();
            for x in 0..width {
                values.sum_from(x);
                errors.sum_from(x);
                for channel in 0..self.channels {
                    let value = foresee(self.shifts[channel], values.sum(channel));
                    let symbol = read(self.expect(channel, value, errors.sum(channel)))?;
                    symbols[(channel * height + y) * width + x] = symbol;
                    values.put(x, channel, symbol);
                    errors.put(x, channel, off(symbol, value));
                }
            }
        }
        Ok(())
    }

    /// What to expect of a symbol, by its foreseen value and the sum of errors.
    fn expect(&self, channel: usize, value: i32, error: i32) -> Expected<'_> {
        let index = usize::from(self.classes[channel][class(error)]);
        let level = self.levels[index];
        let whole = i32::from(nearest(value));
        let part = if index < self.fine {
            (value - PARTS * whole + PARTS / 2) as usize
        } else {
            0
        };
        let len = usize::from(level.values) + 2;
        let table = &self.cumulative[level.start + part * len..][..len];
        Expected {
            table: Table(table),
            first: whole + i32::from(level.lowest),
            escape: level.values,
        }
    }
}

/// The foreseen value of a symbol, in parts, from a sum with so many fractional bits more.
#[inline]
fn foresee(shift: u8, sum: i32) -> i32 {
    let shift = u32::from(shift);
    let value = sum
        .wrapping_add(1_i32.wrapping_shl(shift) >> 1)
        .wrapping_shr(shift);
    let largest = PARTS * i32::from(MAX_SYMBOL);
    value.clamp(-largest, largest)
}

/// The same for all channels of a place.
#[multiversion(targets("x86_64+avx2"))]
fn foresee_all(shifts: &[u8], sums: &[i32], foreseen: &mut [i32]) {
    for ((value, &shift), &sum) in foreseen.iter_mut().zip(shifts).zip(sums) {
        *value = foresee(shift, sum);
    }
}

/// The symbol that a foreseen value rounds to.
#[inline]
fn nearest(value: i32) -> i16 {
    (value.wrapping_add(PARTS / 2) >> PART_BITS) as i16
}

/// How far the symbols of all channels of a place are off.
#[multiversion(targets("x86_64+avx2"))]
fn off_all(symbols: &[i16], foreseen: &[i32], errors: &mut [i16]) {
    for ((error, &symbol), &value) in errors.iter_mut().zip(symbols).zip(foreseen) {
        *error = off(symbol, value);
    }
}

/// How far a symbol is off from what was foreseen.
#[inline]
fn off(symbol: i16, value: i32) -> i16 {
    symbol.abs_diff(nearest(value)) as i16
}

/// The class of a sum of errors.
fn class(sum: i32) -> usize {
    let sum = sum.max(0) as u32;
    // Nothing is shifted away below 16, where a sum is its own class.
    let shift = (sum | 8).ilog2() - 3;
    (8 * shift + (sum >> shift)) as usize
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::entropy::Tables;
    use crate::entropy::tables::tests::falling;

    /// Two channels, two levels of which the first has a table for each part.
    pub(in crate::entropy) fn parts() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([2, 0, 1, 0, 2, 1]);
        let words =
            |words: &[i16]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
        for channel in 0..2_i16 {
            bytes.push(8);
            bytes.extend((0..CLASSES).map(|class| u8::from(class > 40)));
            let here = &[90_i16, 40][..channel as usize];
            for weights in [[120, -8, 130, 9, -30, 10], [100, 20, 100, 25, 30, 30]] {
                bytes.extend(words(&weights[..4]));
                bytes.extend(words(here));
                bytes.extend(words(&weights[4..]));
            }
        }
        for (tables, ratio) in [(8, 30), (1, 80)] {
            bytes.extend(words(&[-4, 9]));
            for _ in 0..tables {
                bytes.extend(falling(ratio).iter().flat_map(|f| f.to_le_bytes()));
            }
        }
        bytes
    }

    #[test]
    fn bad_tables_say_what_is_wrong() {
        let good = parts();
        assert_eq!(Tables::parse_all(&good).unwrap().len(), 1);
        assert_eq!(
            Tables::parse_all(&[good.clone(), good.clone()].concat())
                .unwrap()
                .len(),
            2
        );
        let frequencies = 10 + 2 * (1 + CLASSES + 2 * 12) + 4 + 4;
        for (at, byte, says) in [
            (4, 0, "channels is 0, expected 1 to 256"),
            (6, 3, "corners is 3, expected at most the channels"),
            (8, 0, "levels is 0, expected 1 to 64"),
            (9, 3, "fine levels is 3, expected at most the levels"),
            (11, 2, "channel 0: a level is beyond the last"),
            (10, 2, "channel 0: its fractional bits are not 3 to 14"),
            (frequencies, 1, "level 0: "),
        ] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let error = Tables::parse_all(&bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{error:?} should say {says:?}");
        }
        for len in 0..good.len() {
            assert!(Tables::parse_all(&good[..len]).is_err());
        }
    }

    #[test]
    fn any_flipped_bit_is_tables_or_an_error() {
        let good = parts();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(sets) = Tables::parse_all(&bytes) {
                assert_eq!(sets[0].channels(), 2);
            }
        }
    }
}
