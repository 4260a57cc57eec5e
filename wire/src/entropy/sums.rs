//! The weighted sums of the wide form: over the numbers of the places around one, and of the channels
//! before at the same place, for all channels of a place together.

use ::wide::{i16x8, i32x4};
use multiversion::multiversion;

/// Channels whose sums one vector holds.
const CHANNELS: usize = 4;
/// Vectors that are summed together, in registers.
const BLOCK: usize = 4;

/// The weights of one of the two sums.
///
/// The numbers that a sum is of, in pairs: left, above, above left and above right (as far as those
/// are seen), and of the channels before at the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Weights {
    /// Channels, from the first on, of which the corners are seen.
    corners: usize,
    /// For each channel: of its own at the corners. Empty where corners are seen.
    own: Vec<[i16; 2]>,
    /// For each pair of numbers, for each four channels: the two weights of each.
    pairs: Vec<[i16; 2 * CHANNELS]>,
}

impl Weights {
    /// No weights.
    pub(super) fn new(channels: usize, corners: usize) -> Self {
        let own = if corners == 0 { channels } else { 0 };
        let pairs = channels + corners + channels.div_ceil(2);
        Self {
            corners,
            own: vec![[0; 2]; own],
            pairs: vec![[0; 2 * CHANNELS]; pairs * vectors(channels)],
        }
    }

    /// Takes the weights of one channel from the file.
    pub(super) fn set(&mut self, channel: usize, channels: usize, bytes: &[u8]) {
        let pairs = bytes.chunks_exact(2);
        let mut words = pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
        let here = 2 * (channels + self.corners);
        let numbers = (0..2 * channels).chain(here..here + channel);
        for number in numbers.chain(2 * channels..here) {
            let four = &mut self.pairs[number / 2 * vectors(channels) + channel / CHANNELS];
            four[2 * (channel % CHANNELS) + number % 2] = words.next().unwrap_or_default();
        }
        if let Some(own) = self.own.get_mut(channel) {
            own.fill_with(|| words.next().unwrap_or_default());
        }
    }
}

/// Vectors of the sums of a place, a multiple of [`BLOCK`].
fn vectors(channels: usize) -> usize {
    channels.div_ceil(CHANNELS).next_multiple_of(BLOCK)
}

/// The known numbers of two rows, and one of the two weighted sums of them.
pub(super) struct Rows<'a> {
    weights: &'a Weights,
    channels: usize,
    /// Place by place, with a place of zeros before and after.
    above: Vec<i16>,
    row: Vec<i16>,
    /// The numbers of a place, as far as they are known; else 0.
    pub(super) here: Vec<i16>,
    /// The numbers around a place, and its own.
    around: Vec<i16>,
    /// Which pairs of them are not both zero.
    some: Vec<usize>,
    /// The sums of a place.
    pub(super) sums: Vec<i32>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(weights: &'a Weights, channels: usize, width: usize) -> Self {
        let pairs = weights.pairs.len() / vectors(channels);
        Self {
            weights,
            channels,
            above: vec![0; channels * (width + 2)],
            row: vec![0; channels * (width + 2)],
            here: vec![0; channels],
            around: vec![0; 2 * pairs],
            some: vec![0; pairs],
            sums: vec![0; CHANNELS * vectors(channels)],
        }
    }

    pub(super) fn next_row(&mut self) {
        std::mem::swap(&mut self.above, &mut self.row);
    }

    /// Makes the sums of the next place, of all that is known.
    pub(super) fn next_place(&mut self, x: usize) {
        let (channels, corners) = (self.channels, self.weights.corners);
        let above = &self.above[x * channels..][..3 * channels];
        let (above_left, above) = above.split_at(channels);
        let (above, above_right) = above.split_at(channels);
        let parts = [
            &self.row[x * channels..][..channels],
            above,
            &above_left[..corners],
            &above_right[..corners],
            &self.here,
        ];
        let mut rest = self.around.as_mut_slice();
        for part in parts {
            let (this, after) = rest.split_at_mut(part.len());
            this.copy_from_slice(part);
            rest = after;
        }
        self.sums.fill(0);
        let own = self.weights.own.iter().zip(above_left).zip(above_right);
        for (sum, ((weights, &left), &right)) in self.sums.iter_mut().zip(own) {
            *sum = product(weights[0], left).wrapping_add(product(weights[1], right));
        }
        add_all(
            &self.weights.pairs,
            &self.around,
            &mut self.some,
            &mut self.sums,
        );
    }

    /// Takes a number of the place that has become known, also into the sums of the channels that follow.
    pub(super) fn put(&mut self, channel: usize, number: i16) {
        self.here[channel] = number;
        if number != 0 {
            let pairs = self.channels + self.weights.corners + channel / 2;
            let mut pair = [0; 2];
            pair[channel % 2] = number;
            let first = channel / (CHANNELS * BLOCK);
            add_one(&self.weights.pairs, (pairs, pair), first, &mut self.sums);
        }
    }

    /// Keeps the numbers of a place for those that follow.
    pub(super) fn keep(&mut self, x: usize) {
        self.row[(x + 1) * self.channels..][..self.channels].copy_from_slice(&self.here);
        self.here.fill(0);
    }
}

/// Adds the pairs of numbers that are not both zero, times their weights, to the sums.
#[multiversion(targets("x86_64+avx2"))]
fn add_all(weights: &[[i16; 2 * CHANNELS]], numbers: &[i16], some: &mut [usize], sums: &mut [i32]) {
    let pairs = numbers.as_chunks().0;
    let mut count = 0;
    for (index, &pair) in pairs.iter().enumerate() {
        // The next takes its place where it is zero.
        some[count] = index;
        count += usize::from(pair != [0, 0]);
    }
    let some = &some[..count];
    let pairs = some.iter().map(|&index| (index, pairs[index]));
    add(weights, &pairs, 0, sums);
}

/// The same for one pair, and the sums from a block of them on.
#[multiversion(targets("x86_64+avx2"))]
fn add_one(
    weights: &[[i16; 2 * CHANNELS]],
    pair: (usize, [i16; 2]),
    first: usize,
    sums: &mut [i32],
) {
    add(weights, &std::iter::once(pair), first, sums);
}

#[allow(clippy::inline_always)] // it is compiled for what its caller is compiled for
#[inline(always)]
fn add(
    weights: &[[i16; 2 * CHANNELS]],
    pairs: &(impl Iterator<Item = (usize, [i16; 2])> + Clone),
    first: usize,
    sums: &mut [i32],
) {
    let vectors = sums.len() / CHANNELS;
    let blocks = sums.as_chunks_mut::<{ CHANNELS * BLOCK }>().0;
    for (block, sums) in blocks.iter_mut().enumerate().skip(first) {
        let sums = sums.as_chunks_mut::<CHANNELS>().0;
        let mut added = [i32x4::ZERO; BLOCK];
        for (index, [a, b]) in pairs.clone() {
            let weights = &weights[index * vectors + block * BLOCK..][..BLOCK];
            let pair = i16x8::new([a, b, a, b, a, b, a, b]);
            for (sum, &weights) in added.iter_mut().zip(weights) {
                *sum += i16x8::new(weights).dot(pair);
            }
        }
        for (sum, added) in sums.iter_mut().zip(added) {
            *sum = (i32x4::new(*sum) + added).to_array();
        }
    }
}

fn product(weight: i16, number: i16) -> i32 {
    i32::from(weight).wrapping_mul(number.into())
}
