//! What is remembered of the options of one route.

use std::collections::HashMap;
use std::sync::Arc;

use sidecod_wire::bundle::Manifest;
use sidecod_wire::media::MediaType;
use tokio::time::Instant;

use super::choose::Chooser;
use super::option::{Choice, Kind};
use super::report::Decision;
use super::times::{Mean, Times};
use crate::encode::Codec;
use crate::encode::classical::Classical;

/// Pixels of the pictures on which a bundle reports its bytes.
const REPORT_PIXELS: f64 = 224.0 * 224.0;
/// Bytes a pixel where nothing else is known.
const SOME_BYTES: f64 = 0.15;
/// Bytes of a feature's code where nothing else is known.
const SOME_FEATURE: f64 = 1000.0;

/// The state of a route.
#[derive(Debug, Default)]
pub(super) struct State {
    pub options: Vec<OptionState>,
    /// By size of the input.
    pub choosers: HashMap<u32, Chooser>,
    /// What the model server takes, by edge.
    pub upstream: HashMap<Arc<str>, Times>,
    pub last: Option<Decision>,
}

/// What is remembered of an option.
#[derive(Debug, Default)]
pub(super) struct OptionState {
    /// What the device takes.
    pub device: Times,
    /// What an edge takes beside the model server.
    pub edge: HashMap<Arc<str>, Times>,
    /// Logarithm of what the model server takes for it over what it takes for any.
    pub upstream: Mean,
    /// What the model server takes for a feature, in seconds.
    pub tail: Mean,
    /// Bytes of its code over those of the input, by what the input is.
    bytes: HashMap<Source, Mean>,
    /// Bytes a pixel before any was seen.
    prior: f64,
    pub taken: Option<Instant>,
    pub count: u64,
    /// How far predictions were off, as a share of what was measured.
    pub error: Mean,
}

/// Sizes between one and twice of which the same is expected.
pub(super) fn class(pixels: f64) -> u32 {
    (pixels.max(1.0) as u64).ilog2()
}

impl State {
    pub fn new(choices: &[Choice], codec: &Codec) -> Self {
        let options = choices.iter().map(|choice| OptionState {
            prior: bytes_a_pixel(choice.kind, codec),
            ..OptionState::default()
        });
        Self {
            options: options.collect(),
            ..Self::default()
        }
    }
}

impl OptionState {
    /// Bytes of the code of an input: photos that compress badly in one way do so in others.
    pub fn bytes(&self, size: &Size) -> f64 {
        let ratio = self.bytes.get(&size.source).and_then(Mean::get);
        ratio.map_or(self.prior * size.pixels, |ratio| ratio * size.bytes)
    }

    pub fn observe_bytes(&mut self, size: &Size, bytes: f64) {
        let mean = self.bytes.entry(size.source).or_default();
        mean.add(bytes / size.bytes.max(1.0));
    }
}

/// What an input is, as far as its bytes compress in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// A photo's file.
    Photo(MediaType),
    /// A sound's file.
    Sound,
    /// Numbers of a tensor, or of a feature.
    Numbers,
}

/// How large an input is, as far as the bytes of its code go by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// What it is.
    pub source: Source,
    /// Pixels that are coded.
    pub pixels: f64,
    /// Bytes that the app sends for so many pixels.
    pub bytes: f64,
}

/// What a codec needs for the crops of docs/codec.md.
fn bytes_a_pixel(kind: Kind, codec: &Codec) -> f64 {
    let between = |table: &[(f64, f64)], quality: u8| {
        let quality = f64::from(quality);
        let after = table.partition_point(|(at, _)| *at < quality);
        let after = after.clamp(1, table.len() - 1);
        let ((q0, b0), (q1, b1)) = (table[after - 1], table[after]);
        ((b0 + (b1 - b0) / (q1 - q0) * (quality - q0)) / REPORT_PIXELS).max(0.02)
    };
    match kind {
        Kind::Input { quality } => {
            reported(&codec.bundle().manifest, quality, "estimated_bytes_224")
                .map_or(SOME_BYTES, |bytes| bytes / REPORT_PIXELS)
        }
        // Of a feature, all of them.
        Kind::Head { head, quality } => {
            let manifest = codec
                .parts()
                .heads()
                .get(head)
                .map(|head| &head.bundle().manifest);
            manifest
                .and_then(|manifest| reported(manifest, quality, "estimated_bytes"))
                .unwrap_or(SOME_FEATURE)
        }
        Kind::Local => 0.0,
        Kind::Classical(Classical::Jpeg(quality)) => between(
            &[
                (40.0, 5687.0),
                (60.0, 7511.0),
                (75.0, 9823.0),
                (85.0, 13_050.0),
            ],
            quality,
        ),
        Kind::Classical(Classical::WebP(quality)) => between(
            &[
                (20.0, 3389.0),
                (40.0, 5018.0),
                (60.0, 6472.0),
                (80.0, 9183.0),
            ],
            quality,
        ),
        Kind::Classical(Classical::Avif(quality)) => between(
            &[
                (20.0, 1970.0),
                (40.0, 3550.0),
                (60.0, 5460.0),
                (80.0, 8060.0),
            ],
            quality,
        ),
        Kind::Passthrough => SOME_BYTES,
    }
}

fn reported(manifest: &Manifest, quality: usize, key: &str) -> Option<f64> {
    let value = manifest.qualities.get(quality)?.report.get(key)?;
    value.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_by_those_of_the_input() {
        let mut option = OptionState {
            prior: 0.1,
            ..OptionState::default()
        };
        let size = |source, bytes| Size {
            source,
            pixels: 50_000.0,
            bytes,
        };
        let [jpeg, png] = [MediaType::Jpeg, MediaType::Png].map(Source::Photo);
        assert!((option.bytes(&size(jpeg, 20_000.0)) - 5000.0).abs() < 1e-6);
        option.observe_bytes(&size(jpeg, 20_000.0), 10_000.0);
        option.observe_bytes(&size(png, 90_000.0), 9000.0);
        assert!((option.bytes(&size(jpeg, 30_000.0)) - 15_000.0).abs() < 1e-6);
        assert!((option.bytes(&size(png, 50_000.0)) - 5000.0).abs() < 1e-6);
    }
}
