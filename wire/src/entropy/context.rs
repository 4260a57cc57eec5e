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

/// How one channel picks its table.
///
/// Signed weights let a smooth channel predict its value; weights of magnitudes let a sparse one
/// predict its scale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    /// Weights of the neighbours' values.
    pub(super) value: [i32; NEIGHBOURS],
    /// Weights of the neighbours' magnitudes.
    pub(super) magnitude: [i32; NEIGHBOURS],
    /// Weights of the magnitudes at the same place in the channels before, the nearest first.
    pub(super) previous: Vec<i32>,
    /// Ascending; a sum lies in the bin of the number of thresholds that it reaches.
    pub(super) thresholds: Vec<i32>,
}

impl Context {
    /// The bin for the symbol at `place`. Symbols outside the picture count as zero.
    pub(super) fn bin(&self, data: &[i16], place: Place) -> usize {
        let sum = self.sum(data, place);
        self.thresholds
            .iter()
            .take_while(|&&threshold| threshold <= sum)
            .count()
    }

    fn sum(&self, data: &[i16], place: Place) -> i32 {
        let Place {
            channel,
            y,
            x,
            height,
            width,
        } = place;
        let at = place.index();
        let (left, above) = (x > 0, y > 0);
        let neighbours: [i32; NEIGHBOURS] = [
            if left { data[at - 1].into() } else { 0 },
            if above { data[at - width].into() } else { 0 },
            if left && above {
                data[at - width - 1].into()
            } else {
                0
            },
            if above && x + 1 < width {
                data[at - width + 1].into()
            } else {
                0
            },
        ];
        let mut sum = 0;
        for (i, neighbour) in neighbours.into_iter().enumerate() {
            sum += self.value[i] * neighbour + self.magnitude[i] * neighbour.abs();
        }
        let area = height * width;
        for (back, weight) in (1..=channel).zip(&self.previous) {
            sum += weight * i32::from(data[at - back * area]).abs();
        }
        sum
    }
}
