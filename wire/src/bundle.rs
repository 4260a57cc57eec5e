//! A codec bundle: what both ends must hold the same of.
//!
//! A bundle is a folder with `manifest.json` and the files that it lists with their digests:
//! `encoder.onnx` (pixels to latent), `decoder.pt` and `decoder.onnx` (symbols to pixels) and
//! `tables.bin` (the entropy coder's tables). The SHA-256 of the manifest names the bundle.
//!
//! A bundle of the domain `feature` belongs to a place inside a model: its encoder takes the feature
//! that `head.onnx` gives, its decoder gives the one that `tail.pt` takes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use multiversion::multiversion;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::entropy::{MAX_SYMBOL, Symbols, Tables, TablesError};
use crate::interface::{Answer, Input, LabelsError, check_outputs, wrong};

/// Name of the manifest in a bundle's folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the encoder in a bundle's folder.
pub const ENCODER: &str = "encoder.onnx";
/// Name of the TorchScript decoder in a bundle's folder.
pub const DECODER: &str = "decoder.pt";
/// Name of the ONNX form of the same decoder.
pub const DECODER_ONNX: &str = "decoder.onnx";
/// Name of the entropy coder's tables in a bundle's folder.
pub const TABLES: &str = "tables.bin";

/// Name of the part of the model that the device runs, in the folder of a feature's bundle.
pub const HEAD: &str = "head.onnx";
/// Name of the part of the model that the edge runs, in the folder of a feature's bundle.
pub const TAIL: &str = "tail.pt";
/// Name of the whole model, in a folder for the device.
pub const MODEL: &str = "model.onnx";
/// Name of the labels of the model's outputs.
pub const LABELS: &str = "labels.txt";

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first bytes, as a frame carries them.
    #[must_use]
    pub fn short(&self) -> [u8; 8] {
        let mut short = [0; 8];
        short.copy_from_slice(&self.0[..8]);
        short
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoDigest);
        }
        for (byte, at) in bytes.iter_mut().zip((0..text.len()).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| NoDigest)?;
        }
        Ok(Self(bytes))
    }
}

/// A text is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no SHA-256 in hexadecimal")]
pub struct NoDigest;

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What `manifest.json` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Manifest {
    /// Name of the codec.
    pub name: String,
    /// Version of the codec.
    pub version: String,
    /// What it codes.
    pub domain: Domain,
    /// Pixels a latent place covers, each way.
    pub stride: u32,
    /// Channels of the latent.
    pub channels: usize,
    /// Latent rows of neighbouring picture that the encoder needs above and below a strip.
    pub halo: u32,
    /// Side of the largest square that the decoder takes at once, in latent places.
    pub tile: u32,
    /// How far neighbouring tiles overlap, in latent places.
    pub overlap: u32,
    /// From latent to symbols.
    pub quantizer: Quantizer,
    /// The qualities, at least one.
    pub qualities: Vec<Quality>,
    /// The place inside a model; what a bundle of the domain feature has, and no other.
    #[serde(default)]
    pub point: Option<Point>,
    /// Digest and size of each file.
    pub files: BTreeMap<String, FileDigest>,
}

/// What a bundle codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Photos.
    Image,
    /// What a model has made of an input on the way to its answer.
    Feature,
}

/// A place at which a model is cut in two.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Point {
    /// Channels, rows and columns of the feature there.
    pub feature: [usize; 3],
    /// Numbers that the model gives for one input.
    pub outputs: usize,
    /// How the model's input is made.
    pub input: Input,
    /// How the answer is made.
    pub answer: Answer,
}

impl Point {
    /// Numbers of one feature.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.feature.iter().product()
    }

    /// Columns and rows of the feature: its size, whatever the photo's.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        let [_, height, width] = self.feature;
        (width as u32, height as u32)
    }

    fn check(&self, stride: usize, tile: usize) -> Result<(), BundleError> {
        let [channels, height, width] = self.feature;
        let sides = [height, width];
        if !(1..=4096).contains(&channels)
            || sides
                .iter()
                .any(|side| side % stride != 0 || !(1..=tile).contains(&(side / stride)))
        {
            let expected = format!(
                "channels to 4096, sides that are multiples of {stride} to {}",
                tile * stride
            );
            return wrong("point.feature", &format!("{:?}", self.feature), &expected);
        }
        check_outputs(self.outputs)?;
        self.input.check()
    }
}

/// How a latent becomes symbols.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Quantizer {
    /// The index of the nearest centre less `offset`: the scalar centres of DeepCOD (SenSys 2020).
    Centers {
        /// Ascending.
        centers: Vec<f32>,
        /// Taken off the index, so that common symbols are near zero.
        offset: i16,
    },
    /// The nearest integer.
    Round,
}

/// One quality of a codec.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Quality {
    /// Its name, as routes use it.
    pub name: String,
    /// What each channel of the latent is multiplied with before it is quantised.
    pub gain: Vec<f32>,
    /// Measured bytes and fidelity.
    #[serde(default)]
    pub report: serde_json::Value,
}

/// What a manifest says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FileDigest {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Why a bundle is not usable.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// `manifest.json` is not what a manifest is.
    #[error("{MANIFEST}: {0}")]
    Manifest(#[from] serde_json::Error),
    /// A value of the manifest is out of its range.
    #[error("{MANIFEST}: {field} is {value}, expected {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A file is not listed.
    #[error("{MANIFEST}: files has no {0}")]
    Unlisted(String),
    /// A file is not the one that the manifest lists.
    #[error(
        "{file}: SHA-256 is {found} in {bytes} bytes, the manifest says {expected} in {expected_bytes}"
    )]
    Digest {
        /// Name of the file.
        file: String,
        /// Digest of what is there.
        found: Digest,
        /// Size of what is there.
        bytes: u64,
        /// Digest that the manifest says.
        expected: String,
        /// Size that the manifest says.
        expected_bytes: u64,
    },
    /// The tables are not usable.
    #[error("{TABLES}: {0}")]
    Tables(#[from] TablesError),
    /// The labels are not usable.
    #[error("{LABELS}: {0}")]
    Labels(#[from] LabelsError),
}

pub(crate) fn verify(
    files: &BTreeMap<String, FileDigest>,
    file: &str,
    bytes: &[u8],
) -> Result<(), BundleError> {
    let listed = files
        .get(file)
        .ok_or_else(|| BundleError::Unlisted(file.to_owned()))?;
    let found = Digest::of(bytes);
    if found.to_string() == listed.sha256 && bytes.len() as u64 == listed.bytes {
        return Ok(());
    }
    Err(BundleError::Digest {
        file: file.to_owned(),
        found,
        bytes: bytes.len() as u64,
        expected: listed.sha256.clone(),
        expected_bytes: listed.bytes,
    })
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`BundleError::Manifest`] or [`BundleError::Value`].
    pub fn parse(json: &[u8]) -> Result<Self, BundleError> {
        let manifest: Self = serde_json::from_slice(json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether `bytes` are the file that the manifest lists under this name.
    ///
    /// # Errors
    /// [`BundleError::Unlisted`] or [`BundleError::Digest`].
    pub fn verify(&self, file: &str, bytes: &[u8]) -> Result<(), BundleError> {
        verify(&self.files, file, bytes)
    }

    /// The index of the quality of this name.
    #[must_use]
    pub fn quality(&self, name: &str) -> Option<usize> {
        self.qualities
            .iter()
            .position(|quality| quality.name == name)
    }

    /// Rows and columns of the latent of a picture: its size in strides, rounded up.
    #[must_use]
    pub fn latent_size(&self, width: u32, height: u32) -> (usize, usize) {
        (
            height.div_ceil(self.stride) as usize,
            width.div_ceil(self.stride) as usize,
        )
    }

    /// Turns a latent (channel by channel, `height` rows of `width`) into symbols.
    ///
    /// # Panics
    /// If `latent` has not `channels * height * width` values or `quality` is not one of the list.
    #[must_use]
    pub fn quantize(&self, quality: usize, latent: &[f32], height: usize, width: usize) -> Symbols {
        assert_eq!(
            latent.len(),
            self.channels * height * width,
            "a latent of another shape"
        );
        let gain = &self.qualities[quality].gain;
        let mut symbols = Symbols::zeros(self.channels, height, width);
        let plane = (height * width).max(1);
        for ((symbols, latent), gain) in symbols
            .data
            .chunks_mut(plane)
            .zip(latent.chunks(plane))
            .zip(gain)
        {
            match &self.quantizer {
                Quantizer::Round => round_all(latent, *gain, symbols),
                Quantizer::Centers { centers, offset } => {
                    for (symbol, value) in symbols.iter_mut().zip(latent) {
                        *symbol = nearest(centers, value * gain) - offset;
                    }
                }
            }
        }
        symbols
    }

    fn check(&self) -> Result<(), BundleError> {
        let within = |field, value: u64, allowed: std::ops::RangeInclusive<u64>| {
            if allowed.contains(&value) {
                return Ok(());
            }
            let expected = format!("{} to {}", allowed.start(), allowed.end());
            Err(BundleError::Value {
                field,
                value: value.to_string(),
                expected,
            })
        };
        within("stride", self.stride.into(), 1..=64)?;
        within("channels", self.channels as u64, 1..=1024)?;
        within("halo", self.halo.into(), 0..=64)?;
        within("tile", self.tile.into(), 1..=1024)?;
        within(
            "overlap",
            self.overlap.into(),
            0..=u64::from((self.tile - 1) / 2),
        )?;
        within("number of qualities", self.qualities.len() as u64, 1..=256)?;
        for quality in &self.qualities {
            within(
                "length of a gain",
                quality.gain.len() as u64,
                self.channels as u64..=self.channels as u64,
            )?;
            if let Some(bad) = quality
                .gain
                .iter()
                .find(|gain| !(gain.is_finite() && **gain > 0.0))
            {
                return Err(BundleError::Value {
                    field: "gain",
                    value: bad.to_string(),
                    expected: "a positive number".into(),
                });
            }
        }
        match (self.domain, &self.point) {
            (Domain::Image, None) => {}
            (Domain::Feature, Some(point)) => {
                point.check(self.stride as usize, self.tile as usize)?;
            }
            (domain, _) => {
                let value = format!("{domain:?}").to_lowercase();
                return wrong("domain", &value, "image, or feature with a point");
            }
        }
        if let Quantizer::Centers { centers, offset } = &self.quantizer {
            within("number of centers", centers.len() as u64, 2..=256)?;
            within("offset", offset.unsigned_abs().into(), 0..=256)?;
            if !centers.is_sorted() || centers.iter().any(|center| !center.is_finite()) {
                let value = format!("{centers:?}");
                return Err(BundleError::Value {
                    field: "centers",
                    value,
                    expected: "ascending numbers".into(),
                });
            }
        }
        Ok(())
    }
}

/// The next symbols of values times their gain.
#[multiversion(targets("x86_64+avx2"))]
fn round_all(latent: &[f32], gain: f32, symbols: &mut [i16]) {
    for (symbol, value) in symbols.iter_mut().zip(latent) {
        *symbol = rounded(value * gain);
    }
}

/// The next symbol, halves away from zero, and 0 for what is no number.
#[inline]
fn rounded(value: f32) -> i16 {
    let largest = i32::from(MAX_SYMBOL);
    ((value + 0.5_f32.copysign(value)) as i32).clamp(-largest, largest) as i16
}

/// The index of the center that is nearest.
fn nearest(centers: &[f32], value: f32) -> i16 {
    let above = centers.partition_point(|&center| center < value);
    let nearest = match above {
        0 => 0,
        _ if above == centers.len() => above - 1,
        _ if value - centers[above - 1] <= centers[above] - value => above - 1,
        _ => above,
    };
    nearest as i16
}

/// A manifest with its digest and tables.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// What the codec is.
    pub manifest: Manifest,
    /// The digest of the manifest: the bundle's name between the sidecars.
    pub digest: Digest,
    /// The entropy coder's tables, one set for each quality.
    pub tables: Vec<Tables>,
}

impl Bundle {
    /// Reads a bundle from its manifest and tables.
    ///
    /// # Errors
    /// [`BundleError`] if one of them is damaged, or not made for the other.
    pub fn parse(manifest_json: &[u8], tables_bin: &[u8]) -> Result<Self, BundleError> {
        let manifest = Manifest::parse(manifest_json)?;
        manifest.verify(TABLES, tables_bin)?;
        let tables = Tables::parse_all(tables_bin)?;
        let (sets, channels) = (tables.len(), tables[0].channels());
        for (field, value, expected) in [
            ("channels", manifest.channels, channels),
            ("number of qualities", manifest.qualities.len(), sets),
        ] {
            if value != expected {
                return Err(BundleError::Value {
                    field,
                    value: value.to_string(),
                    expected: format!("{expected}, as in {TABLES}"),
                });
            }
        }
        Ok(Self {
            manifest,
            digest: Digest::of(manifest_json),
            tables,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest() -> serde_json::Value {
        json!({
            "name": "test", "version": "1", "domain": "image", "stride": 4, "channels": 2,
            "halo": 0, "tile": 64, "overlap": 8,
            "quantizer": {"kind": "centers", "centers": [-1.0, 0.0, 2.0], "offset": 1},
            "qualities": [{"name": "only", "gain": [1.0, 0.5]}],
            "files": {"a": {"sha256": Digest::of(b"abc").to_string(), "bytes": 3}},
        })
    }

    fn parse(value: &serde_json::Value) -> Result<Manifest, BundleError> {
        Manifest::parse(value.to_string().as_bytes())
    }

    #[test]
    fn digest_of_a_known_text() {
        // FIPS 180-2, appendix B.1.
        let digest = Digest::of(b"abc");
        assert!(
            digest
                .to_string()
                .starts_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9c")
        );
        assert_eq!(
            digest.short(),
            [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea]
        );
    }

    #[test]
    fn nearest_centre_with_gain() {
        let manifest = parse(&manifest()).unwrap();
        let latent = [
            -9.0,
            -0.6,
            -0.4,
            0.9,
            1.1,
            f32::INFINITY,
            2.0,
            1.9,
            -1.2,
            -0.9,
            4.0,
            f32::NAN,
        ];
        let symbols = manifest.quantize(0, &latent, 2, 3);
        assert_eq!(symbols.data[..11], [-1, -1, 0, 0, 1, 1, 0, 0, -1, 0, 1]);
        assert!((-1..=1).contains(&symbols.data[11]));
        assert_eq!(manifest.latent_size(1, 9), (3, 1));
    }

    #[test]
    fn rounding_stays_in_range() {
        for (value, symbol) in [
            (0.4, 0),
            (-2.6, -3),
            (1e9, MAX_SYMBOL),
            (-1e9, -MAX_SYMBOL),
            (f32::NAN, 0),
        ] {
            assert_eq!(rounded(value), symbol);
        }
    }

    #[test]
    fn bad_manifests_name_the_field() {
        for (pointer, value, says) in [
            ("/stride", json!(0), "stride is 0, expected 1 to 64"),
            ("/overlap", json!(32), "overlap is 32, expected 0 to 31"),
            (
                "/qualities",
                json!([]),
                "number of qualities is 0, expected 1 to 256",
            ),
            (
                "/qualities/0/gain",
                json!([1.0]),
                "length of a gain is 1, expected 2 to 2",
            ),
            (
                "/qualities/0/gain/0",
                json!(-1.0),
                "gain is -1, expected a positive number",
            ),
            (
                "/quantizer/centers",
                json!([1.0, 0.0]),
                "centers is [1.0, 0.0], expected ascending numbers",
            ),
            ("/domain", json!("smell"), "unknown variant `smell`"),
        ] {
            let mut json = manifest();
            *json.pointer_mut(pointer).unwrap() = value;
            let error = parse(&json).unwrap_err().to_string();
            assert!(
                error.starts_with("manifest.json: ") && error.contains(says),
                "{error:?}, {says:?}"
            );
        }
    }

    fn feature() -> serde_json::Value {
        let mut json = manifest();
        json["domain"] = json!("feature");
        json["point"] = json!({
            "feature": [24, 56, 28], "outputs": 10, "tensor": "t", "model": {},
            "input": {"side": 224, "short_side": 256, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
            "answer": {"content_type": "a/b", "values": "softmax", "top": 5, "body": "$top", "item": "$index"},
        });
        json
    }

    #[test]
    fn a_feature_has_a_point_that_fits_its_codec() {
        let good = parse(&feature()).unwrap();
        assert_eq!(good.point.unwrap().numbers(), 24 * 56 * 28);
        for (pointer, value, says) in [
            ("/domain", json!("image"), "domain is image, expected"),
            ("/point", json!(null), "domain is feature, expected"),
            (
                "/point/feature/1",
                json!(57),
                "point.feature is [24, 57, 28], expected",
            ),
            ("/point/feature/2", json!(260), "multiples of 4 to 256"),
            ("/point/feature/0", json!(0), "channels to 4096"),
            ("/point/outputs", json!(0), "outputs is 0, expected"),
            ("/point/input/side", json!(0), "input.side is 0, expected"),
            (
                "/point/answer/values",
                json!("top"),
                "unknown variant `top`",
            ),
        ] {
            let mut json = feature();
            *json.pointer_mut(pointer).unwrap() = value;
            let error = parse(&json).unwrap_err().to_string();
            assert!(error.contains(says), "{error:?}, {says:?}");
        }
    }

    #[test]
    fn another_file_is_refused() {
        let manifest = parse(&manifest()).unwrap();
        assert!(manifest.verify("a", b"abc").is_ok());
        assert!(matches!(
            manifest.verify("a", b"abd"),
            Err(BundleError::Digest { .. })
        ));
        assert!(matches!(
            manifest.verify("b", b"abc"),
            Err(BundleError::Unlisted(_))
        ));
    }
}
