//! The causal context of a symbol: a weighted sum of symbols that both ends know already.

/// Where a symbol stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) channel: usize,
    pub(super) y: usize,
    pub(super) x: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Place {
    /// Index into symbols that lie channel by channel, row by row.
    pub(super) fn index(self) -> usize {
        (self.channel * self.height + self.y) * self.width + self.x
    }
}

/// Number of neighbours in the same channel: left, up, up-left, up-right.
pub(super) const NEIGHBOURS: usize = 4;
/// Number of differences between neighbours: up-left to left, up-left to up, up to up-right.
pub(super) const DIFFERENCES: usize = 3;
/// Weights of a prediction count in this many parts.
const PARTS: i32 = 64;

/// How one channel foresees a value and picks its table.
///
/// A smooth channel predicts its value, and how far that may be off from the differences around; a
/// sparse one predicts its scale from magnitudes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    /// Weights of the neighbours in the predicted value, in 64ths.
    pub(super) predict: [i32; NEIGHBOURS],
    /// Weights of the neighbours' values.
    pub(super) value: [i32; NEIGHBOURS],
    /// Weights of the neighbours' magnitudes.
    pub(super) magnitude: [i32; NEIGHBOURS],
    /// Weights of the magnitudes of differences between neighbours.
    pub(super) difference: [i32; DIFFERENCES],
    /// Weights of the magnitudes at the same place in the channels before, the nearest first.
    pub(super) previous: Vec<i32>,
    /// Ascending; a sum lies in the bin of the number of thresholds that it reaches.
    pub(super) thresholds: Vec<i32>,
}

impl Context {
    /// The predicted value and the bin of the symbol at `place`. Symbols outside the picture count
    /// as zero.
    pub(super) fn see(&self, data: &[i16], place: Place) -> (i16, usize) {
        let Place {
            channel,
            y,
            x,
            height,
            width,
        } = place;
        let at = place.index();
        let value =
            |known: bool, back: usize| -> i32 { if known { data[at - back].into() } else { 0 } };
        let near = [
            value(x > 0, 1),
            value(y > 0, width),
            value(x > 0 && y > 0, width + 1),
            value(y > 0 && x + 1 < width, width.wrapping_sub(1)),
        ];
        let [left, up, up_left, up_right] = near;
        let differences = [left - up_left, up - up_left, up_right - up];
        let (mut predicted, mut sum) = (PARTS / 2, 0);
        for (i, near) in near.into_iter().enumerate() {
            predicted += self.predict[i] * near;
            sum += self.value[i] * near + self.magnitude[i] * near.abs();
        }
        for (weight, difference) in self.difference.iter().zip(differences) {
            sum += weight * difference.abs();
        }
        let area = height * width;
        for (back, weight) in (1..=channel).zip(&self.previous) {
            sum += weight * i32::from(data[at - back * area]).abs();
        }
        let largest = i32::from(super::MAX_SYMBOL);
        let predicted = predicted.div_euclid(PARTS).clamp(-largest, largest);
        let bin = self.thresholds.partition_point(|&t| t <= sum);
        (predicted as i16, bin)
    }
}
