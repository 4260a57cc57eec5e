//! Entropy coder: symbols to bytes and back, in integers only.
//!
//! A causal context (what stands to the left, above and in the previous channels) picks one
//! frequency table out of many for every symbol; a range coder (the constriction crate's) spends
//! about `-log2` of its frequency on it. Contexts and tables come from the bundle and are never
//! computed again: the same bytes give the same symbols on every machine.
//!
//! Damaged bytes give an error or other symbols, never a panic; the work is bounded by the number
//! of symbols that the caller asks for.

mod context;
mod model;
mod sums;
mod tables;
mod wide;

use constriction::stream::model::{DecoderModel, EncoderModel};
use constriction::stream::queue::{DefaultRangeDecoder, DefaultRangeEncoder};
use constriction::stream::{Decode, Encode};

use context::Place;
use model::{Octet, PRECISION};
use tables::{Expected, Form};
pub use tables::{Tables, TablesError};

/// Largest magnitude of a symbol.
pub const MAX_SYMBOL: i16 = 4095;

/// The quantised latent of one picture: `channels * height * width` integers, channel by channel,
/// row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbols {
    /// Channels of the latent.
    pub channels: usize,
    /// Rows of the latent.
    pub height: usize,
    /// Columns of the latent.
    pub width: usize,
    /// The symbols, each between `-MAX_SYMBOL` and `MAX_SYMBOL`.
    pub data: Vec<i16>,
}

impl Symbols {
    /// Symbols that are all zero.
    #[must_use]
    pub fn zeros(channels: usize, height: usize, width: usize) -> Self {
        Self {
            channels,
            height,
            width,
            data: vec![0; channels * height * width],
        }
    }

    /// Copies the rows `from` of a strip to row `to` and below.
    ///
    /// # Panics
    /// If the strip has other channels or another width, or the rows do not exist in it or here.
    pub fn put_rows(&mut self, to: usize, strip: &Self, from: std::ops::Range<usize>) {
        assert_eq!(
            (self.channels, self.width),
            (strip.channels, strip.width),
            "strip of another picture"
        );
        assert!(
            from.end <= strip.height && to + from.len() <= self.height,
            "rows outside the picture"
        );
        for channel in 0..self.channels {
            let source = (channel * strip.height + from.start) * self.width;
            let target = (channel * self.height + to) * self.width;
            let len = from.len() * self.width;
            self.data[target..target + len].copy_from_slice(&strip.data[source..source + len]);
        }
    }
}

/// Why symbols cannot be coded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntropyError {
    /// The symbols have not the shape that they say, or not the channels of the tables.
    #[error("{channels}x{height}x{width} symbols for tables of {tables} channels and {len} values")]
    Shape {
        /// Channels of the symbols.
        channels: usize,
        /// Rows of the symbols.
        height: usize,
        /// Columns of the symbols.
        width: usize,
        /// Channels of the tables.
        tables: usize,
        /// Values that are there.
        len: usize,
    },
    /// A symbol is out of range.
    #[error("symbol {0} is beyond {MAX_SYMBOL}")]
    Symbol(i16),
    /// The code is not one that the encoder writes.
    #[error("code is damaged")]
    Damaged,
}

/// Packs symbols into a code.
///
/// # Errors
/// [`EntropyError::Shape`] or [`EntropyError::Symbol`] if the symbols do not fit the tables.
pub fn encode(symbols: &Symbols, tables: &Tables) -> Result<Vec<u8>, EntropyError> {
    let &Symbols {
        channels,
        height,
        width,
        ref data,
    } = symbols;
    if Some(data.len()) != volume(channels, height, width) || channels != tables.channels() {
        return Err(shape(channels, height, width, tables, data.len()));
    }
    let beyond = |symbol: &&i16| symbol.unsigned_abs() > MAX_SYMBOL.unsigned_abs();
    if let Some(&symbol) = data.iter().find(beyond) {
        return Err(EntropyError::Symbol(symbol));
    }
    let mut coder = DefaultRangeEncoder::new();
    match &tables.0 {
        Form::Narrow(set) => {
            for place in places(channels, height, width) {
                write_symbol(&mut coder, set.expect(data, place), data[place.index()])?;
            }
        }
        Form::Wide(set) => set.write(data, height, width, |symbol, expected| {
            write_symbol(&mut coder, expected, symbol)
        })?,
    }
    let words = coder
        .into_compressed()
        .unwrap_or_else(|error| match error {});
    let mut code: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
    // The decoder reads zeros past the end.
    while code.last() == Some(&0) {
        code.pop();
    }
    Ok(code)
}

/// Unpacks a code into symbols of the given shape. The caller has checked the shape against its
/// limits: memory and time are proportional to it, whatever the code.
///
/// # Errors
/// [`EntropyError::Shape`] if the tables have other channels, [`EntropyError::Damaged`] for bytes
/// that are no code.
pub fn decode(
    code: &[u8],
    channels: usize,
    height: usize,
    width: usize,
    tables: &Tables,
) -> Result<Symbols, EntropyError> {
    let len = volume(channels, height, width).filter(|_| channels == tables.channels());
    let len = len.ok_or_else(|| shape(channels, height, width, tables, 0))?;
    let words: Vec<u32> = code
        .chunks(4)
        .map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_be_bytes(word)
        })
        .collect();
    let mut coder =
        DefaultRangeDecoder::from_compressed(words).unwrap_or_else(|error| match error {});
    let mut data = vec![0; len];
    match &tables.0 {
        Form::Narrow(set) => {
            for place in places(channels, height, width) {
                data[place.index()] = read_symbol(&mut coder, set.expect(&data, place))?;
            }
        }
        Form::Wide(set) => set.read_into(&mut data, height, width, |expected| {
            read_symbol(&mut coder, expected)
        })?,
    }
    Ok(Symbols {
        channels,
        height,
        width,
        data,
    })
}

fn volume(channels: usize, height: usize, width: usize) -> Option<usize> {
    channels.checked_mul(height)?.checked_mul(width)
}

fn shape(
    channels: usize,
    height: usize,
    width: usize,
    tables: &Tables,
    len: usize,
) -> EntropyError {
    EntropyError::Shape {
        channels,
        height,
        width,
        tables: tables.channels(),
        len,
    }
}

/// The places of a picture in the order of the code.
fn places(channels: usize, height: usize, width: usize) -> impl Iterator<Item = Place> {
    (0..height).flat_map(move |y| {
        (0..width).flat_map(move |x| {
            (0..channels).map(move |channel| Place {
                channel,
                y,
                x,
                height,
                width,
            })
        })
    })
}

fn write_symbol(
    coder: &mut DefaultRangeEncoder,
    expected: Expected<'_>,
    value: i16,
) -> Result<(), EntropyError> {
    let entry = expected.entry(value);
    write(coder, entry, expected.table)?;
    if entry == expected.escape {
        for octet in value.to_be_bytes() {
            write(coder, octet.into(), Octet)?;
        }
    }
    Ok(())
}

fn read_symbol(
    coder: &mut DefaultRangeDecoder,
    expected: Expected<'_>,
) -> Result<i16, EntropyError> {
    let entry = read(coder, expected.table)?;
    let value = if entry == expected.escape {
        let octets = [read(coder, Octet)? as u8, read(coder, Octet)? as u8];
        i16::from_be_bytes(octets)
    } else {
        expected.value(entry)
    };
    if value.unsigned_abs() > MAX_SYMBOL.unsigned_abs() {
        return Err(EntropyError::Damaged);
    }
    Ok(value)
}

fn write<M>(coder: &mut DefaultRangeEncoder, entry: u16, model: M) -> Result<(), EntropyError>
where
    M: EncoderModel<PRECISION, Symbol = u16, Probability = u16>,
{
    // Every entry has a frequency of at least 1, so that none is impossible.
    coder
        .encode_symbol(entry, model)
        .map_err(|_| EntropyError::Damaged)
}

fn read<M>(coder: &mut DefaultRangeDecoder, model: M) -> Result<u16, EntropyError>
where
    M: DecoderModel<PRECISION, Symbol = u16, Probability = u16>,
{
    coder
        .decode_symbol(model)
        .map_err(|_| EntropyError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::tables::tests::{laplace, parts};
    use proptest::prelude::*;

    fn symbols(channels: usize) -> impl Strategy<Value = Symbols> {
        (0_usize..9, 0_usize..9).prop_flat_map(move |(height, width)| {
            let value =
                prop_oneof![6 => -2_i16..=2, 2 => -12_i16..=12, 1 => -MAX_SYMBOL..=MAX_SYMBOL];
            prop::collection::vec(value, channels * height * width).prop_map(move |data| Symbols {
                channels,
                height,
                width,
                data,
            })
        })
    }

    fn wide() -> Tables {
        Tables::parse_all(&wide::tests::parts()).unwrap().remove(0)
    }

    proptest! {
        #[test]
        fn round_trip(symbols in symbols(3)) {
            let tables = laplace();
            let code = encode(&symbols, &tables).unwrap();
            let back = decode(&code, 3, symbols.height, symbols.width, &tables);
            prop_assert_eq!(back, Ok(symbols));
        }

        #[test]
        fn round_trip_of_the_wide_form(symbols in symbols(2)) {
            let tables = wide();
            let code = encode(&symbols, &tables).unwrap();
            let back = decode(&code, 2, symbols.height, symbols.width, &tables);
            prop_assert_eq!(back, Ok(symbols));
        }

        #[test]
        fn any_bytes_give_symbols_or_an_error(code in prop::collection::vec(any::<u8>(), 0..60)) {
            for (channels, tables) in [(3, laplace()), (2, wide())] {
                if let Ok(symbols) = decode(&code, channels, 5, 7, &tables) {
                    prop_assert!(symbols.data.iter().all(|s| s.abs() <= MAX_SYMBOL));
                }
            }
        }
    }

    fn sample() -> Symbols {
        let data = (0..3 * 6 * 8)
            .map(|i| [0, 0, 1, 0, -1, 0, 0, 3, 0, 900][i % 10])
            .collect();
        Symbols {
            channels: 3,
            height: 6,
            width: 8,
            data,
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_decoded_or_refused() {
        let tables = laplace();
        let code = encode(&sample(), &tables).unwrap();
        for bit in 0..code.len() * 8 {
            let mut damaged = code.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(symbols) = decode(&damaged, 3, 6, 8, &tables) {
                assert_eq!(symbols.data.len(), 3 * 6 * 8);
            }
        }
        for len in 0..code.len() {
            if let Ok(symbols) = decode(&code[..len], 3, 6, 8, &tables) {
                assert_ne!(
                    symbols,
                    sample(),
                    "a code cut to {len} cannot hold everything"
                );
            }
        }
    }

    #[test]
    fn costs_what_the_frequencies_say() {
        // One context, a table that gives zero 30000 of 32768: 0.127 bits a symbol.
        let tables = Tables::parse_all(&parts(1, -1, &[1000, 30_000, 1000, 768])).unwrap();
        let tables = &tables[0];
        let zeros = Symbols::zeros(1, 100, 100);
        let ideal = 10_000.0 * -(30_000_f64 / 32_768.0).log2() / 8.0;
        let len = encode(&zeros, tables).unwrap().len() as f64;
        assert!(
            (ideal..ideal + 8.0).contains(&len),
            "{len} bytes, ideal {ideal}"
        );
    }

    #[test]
    fn a_context_that_predicts_saves_bytes() {
        let rows: Vec<i16> = (0..32_i16)
            .flat_map(|y| std::iter::repeat_n(y % 5 - 2, 32))
            .collect();
        let symbols = Symbols {
            channels: 3,
            height: 32,
            width: 32,
            data: [rows.clone(), rows.clone(), rows].concat(),
        };
        let blind = Tables::parse_all(&tables::tests::without_context(3)).unwrap();
        let seeing = encode(&symbols, &laplace()).unwrap().len();
        let blind = encode(&symbols, &blind[0]).unwrap().len();
        assert!(
            seeing < blind,
            "{seeing} bytes with context, {blind} without"
        );
    }

    #[test]
    fn symbols_that_do_not_fit_are_errors() {
        let tables = laplace();
        let mut symbols = Symbols::zeros(3, 1, 1);
        symbols.data[1] = MAX_SYMBOL + 1;
        assert_eq!(encode(&symbols, &tables), Err(EntropyError::Symbol(4096)));
        symbols.data.pop();
        assert!(matches!(
            encode(&symbols, &tables),
            Err(EntropyError::Shape { len: 2, .. })
        ));
        assert!(matches!(
            decode(&[], 2, 1, 1, &tables),
            Err(EntropyError::Shape { .. })
        ));
        assert!(matches!(
            decode(&[], 3, usize::MAX, 2, &tables),
            Err(EntropyError::Shape { .. })
        ));
    }

    #[test]
    fn strips_make_up_a_picture() {
        let whole = sample();
        let mut back = Symbols::zeros(3, 6, 8);
        // Strips of three rows, each with one row of its neighbour.
        for (from, to, keep) in [(0, 4, 0..3), (2, 6, 1..4)] {
            let rows = |c: usize| whole.data[(c * 6 + from) * 8..(c * 6 + to) * 8].to_vec();
            let strip = Symbols {
                channels: 3,
                height: 4,
                width: 8,
                data: (0..3).flat_map(rows).collect(),
            };
            back.put_rows(from + keep.start, &strip, keep);
        }
        assert_eq!(back, whole);
    }
}
