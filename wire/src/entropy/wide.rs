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

use super::model::Table;
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

/// Contexts and frequencies for every channel of a latent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wide {
    channels: usize,
    fine: usize,
    /// For each channel: fractional bits of the weights of values.
    shifts: Vec<u8>,
    /// For each channel: the level of each class of a sum.
    classes: Vec<[u8; CLASSES]>,
    value: Weights,
    error: Weights,
    levels: Vec<Level>,
    /// For each level, for each part: cumulative frequencies, from 0 to the total.
    cumulative: Vec<u16>,
}

/// The weights of one of the two sums.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Weights {
    /// Channels, from the first on, of which the corners are seen.
    corners: usize,
    /// For each channel: of the numbers around.
    around: Vec<i16>,
    /// For each channel: of its own at the corners.
    own: Vec<[i16; 2]>,
    /// For each channel, in each that follows.
    here: Vec<i16>,
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
            set.shifts.push(shift);
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

    /// Goes through a picture in the order of the code: `symbol` is told which symbol is next
    /// (channel by channel, row by row) and what to expect of it, and says what it is.
    pub(super) fn walk(
        &self,
        height: usize,
        width: usize,
        mut symbol: impl FnMut(usize, Expected<'_>) -> Result<i16, EntropyError>,
    ) -> Result<(), EntropyError> {
        let area = height * width;
        let mut values = Rows::new(&self.value, self.channels, width);
        let mut errors = Rows::new(&self.error, self.channels, width);
        for y in 0..height {
            values.next_row();
            errors.next_row();
            for x in 0..width {
                values.next_place(x);
                errors.next_place(x);
                for channel in 0..self.channels {
                    let (whole, expected) =
                        self.expect(channel, values.sums[channel], errors.sums[channel]);
                    let value = symbol(channel * area + y * width + x, expected)?;
                    values.put(x, channel, value);
                    errors.put(x, channel, (value - whole).abs());
                }
            }
        }
        Ok(())
    }

    /// The rounded foreseen value and what to expect of a symbol.
    fn expect(&self, channel: usize, value: i32, error: i32) -> (i16, Expected<'_>) {
        let shift = u32::from(self.shifts[channel]) - PART_BITS;
        let value = value.wrapping_add(1 << shift >> 1) >> shift;
        let largest = PARTS * i32::from(MAX_SYMBOL);
        let value = value.clamp(-largest, largest);
        let whole = (value + PARTS / 2) >> PART_BITS;
        let index = usize::from(self.classes[channel][class(error)]);
        let level = self.levels[index];
        let part = if index < self.fine {
            (value - PARTS * whole + PARTS / 2) as usize
        } else {
            0
        };
        let len = usize::from(level.values) + 2;
        let table = &self.cumulative[level.start + part * len..][..len];
        let expected = Expected {
            table: Table(table),
            first: whole + i32::from(level.lowest),
            escape: level.values,
        };
        (whole as i16, expected)
    }
}

/// The class of a sum of errors.
fn class(sum: i32) -> usize {
    let sum = sum.max(0) as u32;
    if sum < 16 {
        return sum as usize;
    }
    // From 16 on the highest bit is 4 to 30.
    let highest = sum.ilog2();
    (8 * (highest - 3) + (sum >> (highest - 3))) as usize
}

impl Weights {
    /// No weights. Numbers around a place are left, above, above left, above right.
    fn new(channels: usize, corners: usize) -> Self {
        Self {
            corners,
            around: vec![0; 2 * (channels + corners) * channels],
            own: vec![[0; 2]; channels],
            here: vec![0; channels * channels],
        }
    }

    /// Takes the weights of one channel from the file.
    fn set(&mut self, channel: usize, channels: usize, bytes: &[u8]) {
        let pairs = bytes.chunks_exact(2);
        let mut words = pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
        let len = 2 * (channels + self.corners);
        let (near, corners) = self.around[channel * len..][..len].split_at_mut(2 * channels);
        near.fill_with(|| words.next().unwrap_or_default());
        for from in 0..channel {
            self.here[from * channels + channel] = words.next().unwrap_or_default();
        }
        let corners = if corners.is_empty() {
            &mut self.own[channel]
        } else {
            corners
        };
        corners.fill_with(|| words.next().unwrap_or_default());
    }
}

/// The known numbers of two rows, and one of the two weighted sums of them.
struct Rows<'a> {
    weights: &'a Weights,
    channels: usize,
    /// Place by place, with a place of zeros before and after.
    above: Vec<i16>,
    row: Vec<i16>,
    /// The numbers around a place.
    around: Vec<i16>,
    /// The sums of a place.
    sums: Vec<i32>,
}

impl<'a> Rows<'a> {
    fn new(weights: &'a Weights, channels: usize, width: usize) -> Self {
        Self {
            weights,
            channels,
            above: vec![0; channels * (width + 2)],
            row: vec![0; channels * (width + 2)],
            around: vec![0; 2 * (channels + weights.corners)],
            sums: vec![0; channels],
        }
    }

    fn next_row(&mut self) {
        std::mem::swap(&mut self.above, &mut self.row);
    }

    fn next_place(&mut self, x: usize) {
        let (channels, corners) = (self.channels, self.weights.corners);
        let above = &self.above[x * channels..][..3 * channels];
        let (above_left, above) = above.split_at(channels);
        let (above, above_right) = above.split_at(channels);
        let parts = [
            &self.row[x * channels..][..channels],
            above,
            &above_left[..corners],
            &above_right[..corners],
        ];
        let mut rest = self.around.as_mut_slice();
        for part in parts {
            let (here, after) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = after;
        }
        let own = self.weights.own.iter().zip(above_left).zip(above_right);
        for (sum, ((weights, &left), &right)) in self.sums.iter_mut().zip(own) {
            *sum = product(weights[0], left).wrapping_add(product(weights[1], right));
        }
        // Where nothing is around, as in most of a smooth picture, the sums are done.
        if self.around.iter().fold(0, |any, number| any | number) != 0 {
            let weights = self.weights.around.chunks_exact(self.around.len());
            for (sum, weights) in self.sums.iter_mut().zip(weights) {
                *sum = sum.wrapping_add(dot(weights, &self.around));
            }
        }
    }

    fn put(&mut self, x: usize, channel: usize, number: i16) {
        self.row[(x + 1) * self.channels + channel] = number;
        if number != 0 {
            let weights = &self.weights.here[channel * self.channels..][..self.channels];
            let later = channel + 1..self.channels;
            for (sum, &weight) in self.sums[later.clone()].iter_mut().zip(&weights[later]) {
                *sum = sum.wrapping_add(product(weight, number));
            }
        }
    }
}

fn product(weight: i16, number: i16) -> i32 {
    i32::from(weight).wrapping_mul(number.into())
}

fn dot(weights: &[i16], numbers: &[i16]) -> i32 {
    let products = weights.iter().zip(numbers);
    products.fold(0, |sum: i32, (&weight, &number)| {
        sum.wrapping_add(product(weight, number))
    })
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
