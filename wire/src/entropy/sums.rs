//! The weighted sums of the wide form: over the numbers of the places around one, and of the channels
//! before at the same place, for all channels of a place together.

use ::wide::{i16x8, i32x4};
use multiversion::multiversion;

/// Channels whose sums one vector holds.
const CHANNELS: usize = 4;
/// Vectors that are summed together, in registers.
const BLOCK: usize = 4;
/// The same where several places are summed together.
const FEW: usize = 2;

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

/// The known numbers of two rows, and one of the two weighted sums of them, for `N` places at a time.
pub(super) struct Rows<'a, const N: usize> {
    weights: &'a Weights,
    channels: usize,
    /// Place by place, with a place of zeros before and `N` after; 0 as long as not known.
    above: Vec<i16>,
    row: Vec<i16>,
    /// The numbers around each of the places, and its own.
    around: Vec<i16>,
    /// The pairs of them that are not zero at all places.
    some: Vec<Pairs<N>>,
    /// The sums of each of the places.
    sums: Vec<i32>,
}

/// Where the weights of a pair of numbers begin, and what it is at each place.
type Pairs<const N: usize> = (usize, [[i16; 2]; N]);

impl<'a, const N: usize> Rows<'a, N> {
    pub(super) fn new(weights: &'a Weights, channels: usize, width: usize) -> Self {
        let pairs = weights.pairs.len() / vectors(channels);
        let numbers = channels * (width + 1 + N);
        Self {
            weights,
            channels,
            above: vec![0; numbers],
            row: vec![0; numbers],
            around: vec![0; 2 * pairs * N],
            some: vec![(0, [[0; 2]; N]); pairs],
            sums: vec![0; CHANNELS * vectors(channels) * N],
        }
    }

    /// Goes on to a row of which nothing is known.
    pub(super) fn next_row(&mut self) {
        std::mem::swap(&mut self.above, &mut self.row);
        self.row.fill(0);
    }

    /// The numbers of a place of the row.
    pub(super) fn at(&self, x: usize) -> &[i16] {
        &self.row[(x + 1) * self.channels..][..self.channels]
    }

    /// The same, to make them known.
    pub(super) fn at_mut(&mut self, x: usize) -> &mut [i16] {
        &mut self.row[(x + 1) * self.channels..][..self.channels]
    }

    /// Makes the sums of the places from one on, of all that is known.
    pub(super) fn sum_from(&mut self, x: usize) {
        let (channels, corners) = (self.channels, self.weights.corners);
        let places = self.around.chunks_exact_mut(2 * self.some.len());
        let each = self.sums.len() / N;
        for (x, (mut around, sums)) in (x..).zip(places.zip(self.sums.chunks_exact_mut(each))) {
            let (left, here) = self.row[x * channels..][..2 * channels].split_at(channels);
            let above = &self.above[x * channels..][..3 * channels];
            let (above_left, above) = above.split_at(channels);
            let (above, above_right) = above.split_at(channels);
            let (corner_left, corner_right) = (&above_left[..corners], &above_right[..corners]);
            for part in [left, above, corner_left, corner_right, here] {
                let (this, rest) = around.split_at_mut(part.len());
                this.copy_from_slice(part);
                around = rest;
            }
            sums.fill(0);
            let own = self.weights.own.iter().zip(above_left).zip(above_right);
            for (sum, ((weights, &left), &right)) in sums.iter_mut().zip(own) {
                *sum = product(weights[0], left).wrapping_add(product(weights[1], right));
            }
        }
        add_all(
            &self.weights.pairs,
            &self.around,
            &mut self.some,
            &mut self.sums,
        );
    }

    /// The sums of each of the places.
    pub(super) fn sums(&self) -> impl Iterator<Item = &[i32]> {
        self.sums.chunks_exact(self.sums.len() / N)
    }
}

impl Rows<'_, 1> {
    /// The sum of a channel at the place.
    pub(super) fn sum(&self, channel: usize) -> i32 {
        self.sums[channel]
    }

    /// Takes a number of the place that has become known, also into the sums of the channels that follow.
    pub(super) fn put(&mut self, x: usize, channel: usize, number: i16) {
        self.at_mut(x)[channel] = number;
        if number != 0 {
            let pairs = self.channels + self.weights.corners + channel / 2;
            let mut pair = [0; 2];
            pair[channel % 2] = number;
            let first = channel / (CHANNELS * BLOCK);
            let start = pairs * vectors(self.channels);
            add_one(&self.weights.pairs, (start, [pair]), first, &mut self.sums);
        }
    }
}

/// Adds the pairs of numbers that are not zero at all places, times their weights, to the sums.
#[multiversion(targets("x86_64+avx2"))]
fn add_all<const N: usize>(
    weights: &[[i16; 2 * CHANNELS]],
    around: &[i16],
    some: &mut [Pairs<N>],
    sums: &mut [i32],
) {
    let pairs = around.as_chunks().0;
    let vectors = sums.len() / CHANNELS / N;
    let mut count = 0;
    for index in 0..some.len() {
        let at: [[i16; 2]; N] = std::array::from_fn(|place| pairs[place * some.len() + index]);
        // The next takes its place where it is zero.
        some[count] = (index * vectors, at);
        count += usize::from(at != [[0; 2]; N]);
    }
    match N {
        1 => add::<N, BLOCK>(weights, &some[..count], 0, sums),
        _ => add::<N, FEW>(weights, &some[..count], 0, sums),
    }
}

/// The same for one pair, and the sums from a block of them on.
#[multiversion(targets("x86_64+avx2"))]
fn add_one(weights: &[[i16; 2 * CHANNELS]], pair: Pairs<1>, first: usize, sums: &mut [i32]) {
    add::<1, BLOCK>(weights, &[pair], first, sums);
}

#[allow(clippy::inline_always)] // it is compiled for what its caller is compiled for
#[inline(always)]
fn add<const N: usize, const B: usize>(
    weights: &[[i16; 2 * CHANNELS]],
    some: &[Pairs<N>],
    first: usize,
    sums: &mut [i32],
) {
    let sums = sums.as_chunks_mut::<CHANNELS>().0;
    let vectors = sums.len() / N;
    for block in first..vectors / B {
        let mut added = [[i32x4::ZERO; B]; N];
        for (start, at) in some {
            let weights = &weights[start + block * B..][..B];
            for (sums, &[a, b]) in added.iter_mut().zip(at) {
                let pair = i16x8::new([a, b, a, b, a, b, a, b]);
                for (sum, &weights) in sums.iter_mut().zip(weights) {
                    *sum += i16x8::new(weights).dot(pair);
                }
            }
        }
        for (place, added) in added.iter().enumerate() {
            let sums = &mut sums[place * vectors + block * B..][..B];
            for (sum, &added) in sums.iter_mut().zip(added) {
                *sum = (i32x4::new(*sum) + added).to_array();
            }
        }
    }
}

fn product(weight: i16, number: i16) -> i32 {
    i32::from(weight).wrapping_mul(number.into())
}
