//! Frequencies as the range coder wants them.

use std::borrow::Borrow;
use std::num::NonZeroU16;

use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};

/// Frequencies sum to two to this power.
pub(super) const PRECISION: usize = 15;
/// What the frequencies of a table sum to.
pub(super) const TOTAL: u16 = 1 << PRECISION;

/// Cumulative frequencies of the entries of one table: one number more than entries, from 0 to
/// [`TOTAL`], strictly ascending.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a>(pub(super) &'a [u16]);

impl EntropyModel<PRECISION> for Table<'_> {
    type Symbol = u16;
    type Probability = u16;
}

impl EncoderModel<PRECISION> for Table<'_> {
    fn left_cumulative_and_probability(
        &self,
        symbol: impl Borrow<u16>,
    ) -> Option<(u16, NonZeroU16)> {
        let entry = usize::from(*symbol.borrow());
        let (&left, &right) = (self.0.get(entry)?, self.0.get(entry + 1)?);
        Some((left, NonZeroU16::new(right - left)?))
    }
}

impl DecoderModel<PRECISION> for Table<'_> {
    fn quantile_function(&self, quantile: u16) -> (u16, u16, NonZeroU16) {
        let entry = self.0.partition_point(|&left| left <= quantile) - 1;
        let left = self.0[entry];
        (
            entry as u16,
            left,
            NonZeroU16::new(self.0[entry + 1] - left).unwrap_or(NonZeroU16::MIN),
        )
    }
}

/// A byte of which nothing is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Octet;

const OCTET: NonZeroU16 = NonZeroU16::new(TOTAL >> 8).unwrap();

impl EntropyModel<PRECISION> for Octet {
    type Symbol = u16;
    type Probability = u16;
}

impl EncoderModel<PRECISION> for Octet {
    fn left_cumulative_and_probability(
        &self,
        symbol: impl Borrow<u16>,
    ) -> Option<(u16, NonZeroU16)> {
        (*symbol.borrow() < 256).then(|| (*symbol.borrow() * OCTET.get(), OCTET))
    }
}

impl DecoderModel<PRECISION> for Octet {
    fn quantile_function(&self, quantile: u16) -> (u16, u16, NonZeroU16) {
        let octet = quantile / OCTET;
        (octet, octet * OCTET.get(), OCTET)
    }
}
