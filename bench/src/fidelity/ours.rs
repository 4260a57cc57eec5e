//! Our codecs, by the code that the sidecars run: tract and the entropy coder on one side, the
//! entropy decoder and libtorch on the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::HeaderMap;
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use sidecod_device::encode::{self, Coding, Looked};
use sidecod_edge::bundles::{self, Stored};
use sidecod_edge::config::{Device, Precision};
use sidecod_edge::decode::pool::{Pool, Settings};
use sidecod_edge::decode::torch::Engine;
use sidecod_edge::decode::{self, Content};
use sidecod_wire::bundle::Manifest;
use sidecod_wire::entropy;
use sidecod_wire::frame::{Frame, Slot};
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{self, Color, Picture};

use super::{Codec, Coded};
use crate::stack::workspace;

/// Times that a picture is coded; the shortest counts.
pub(super) const REPEAT: usize = 3;

/// One bundle at one quality and one bound on the longer side.
pub struct Ours {
    name: String,
    label: String,
    quality: usize,
    max_side: u32,
    encoder: Arc<encode::Codec>,
    decoder: Arc<Decoding>,
}

/// What the edge does with frames of one bundle.
pub struct Decoding {
    codec: Arc<decode::Codec>,
    pool: Pool,
}

impl Decoding {
    /// Loads and warms the decoder of a bundle, and the tail behind it where it has one.
    pub fn open(engine: Engine, stored: Stored) -> Result<Self> {
        let decoder = Box::new(engine.load(&stored)?);
        let codec = Arc::new(decode::Codec {
            bundle: stored.bundle,
            decoder,
        });
        let settings = Settings {
            threads: 1,
            queue: 1,
            // Nobody is hurried.
            max_wait: Duration::from_hours(1),
            max_batch: 1,
        };
        let (pool, warmed) = Pool::start(std::slice::from_ref(&codec), settings)?;
        for warmed in warmed {
            warmed
                .blocking_recv()
                .context("the decode thread has ended")??;
        }
        Ok(Self { codec, pool })
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.codec.bundle.manifest
    }

    /// What the one picture of a frame decodes to.
    pub fn content(&self, frame: &[u8]) -> Result<Content> {
        let frame = Frame::decode(frame, &Limits::default())?;
        let [Slot::Picture(slot)] = &frame.slots[..] else {
            bail!("the frame has {} slots", frame.slots.len());
        };
        let bundle = &self.codec.bundle;
        let channels = bundle.manifest.channels;
        let size = match &bundle.manifest.point {
            Some(point) => point.size(),
            None => slot.coded_size(),
        };
        let (height, width) = bundle.manifest.latent_size(size.0, size.1);
        let quality = usize::from(frame.quality);
        let tables = &bundle.tables[quality];
        let symbols = entropy::decode(&slot.code, channels, height, width, tables)?;
        let submitted = self.pool.submit(self.codec.clone(), quality, symbols, size);
        let Ok(waiting) = submitted else {
            bail!("the decode queue is full");
        };
        let decoded = waiting.blocking_recv();
        Ok(decoded.context("the decode thread has ended")??.content)
    }
}

/// The bundles that ship.
pub fn shipped() -> Result<Vec<PathBuf>> {
    let folder = workspace().join("onnx/codecs");
    let mut bundles: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("manifest.json").exists())
        .collect();
    bundles.sort();
    Ok(bundles)
}

/// Opens bundles at every quality, without a bound on the longer side and with each of `max_sides`;
/// decoders compute in numbers of this precision.
/// Several of one name, as two versions are, go by their folders.
pub fn open(folders: &[PathBuf], max_sides: &[u32], precision: Precision) -> Result<Vec<Ours>> {
    let engine = Engine::start(Device::Auto, 1, 1)?.computing_in(precision);
    let bundles = bundles::read_all(folders)?;
    let manifests = bundles.iter().map(|stored| &stored.bundle.manifest);
    let names: Vec<String> = manifests.map(|manifest| manifest.name.clone()).collect();
    let mut all = Vec::new();
    for (folder, stored) in folders.iter().zip(bundles) {
        let encoder = Arc::new(encode::Codec::open(folder, Limits::default())?);
        let decoder = Arc::new(Decoding::open(engine, stored)?);
        let manifest = decoder.manifest();
        let name = match names.iter().filter(|&name| *name == manifest.name).count() {
            1 => manifest.name.clone(),
            _ => folder.display().to_string(),
        };
        for max_side in std::iter::once(0).chain(max_sides.iter().copied()) {
            for (quality, listed) in manifest.qualities.iter().enumerate() {
                all.push(Ours {
                    name: match max_side {
                        0 => name.clone(),
                        bound => format!("{name}@{bound}"),
                    },
                    label: listed.name.clone(),
                    quality,
                    max_side,
                    encoder: encoder.clone(),
                    decoder: decoder.clone(),
                });
            }
        }
    }
    Ok(all)
}

impl Ours {
    /// Pixels at the picture's own size.
    fn restored(&self, rgb: Vec<u8>, width: u32, height: u32) -> Vec<u8> {
        let (coded_width, coded_height) = media::coded_size(width, height, self.max_side);
        let picture = Picture {
            width: coded_width,
            height: coded_height,
            color: Color::Rgb,
            orientation: 1,
            rgb,
        };
        picture.resized(width, height).rgb
    }
}

impl Codec for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn quality(&self) -> &str {
        &self.label
    }

    fn code(&mut self, picture: &RgbImage) -> Result<Coded> {
        // What the app sends; reading it back is no part of the codec's time.
        let mut file = Vec::new();
        let (width, height) = picture.dimensions();
        image::codecs::png::PngEncoder::new(&mut file).write_image(
            picture,
            width,
            height,
            ExtendedColorType::Rgb8,
        )?;
        let coding = Coding {
            max_side: self.max_side,
            ..Coding::default()
        };
        let limits = self.encoder.limits();
        let (headers, limit) = (HeaderMap::new(), file.len());
        let looked = Looked::new(&headers, file.into(), limit, &coding.shape, limits)?;
        let (mut encode, mut decode) = (Duration::MAX, Duration::MAX);
        let (mut bytes, mut rgb) = (Bytes::new(), Vec::new());
        // One after the other, as device and edge do it: a decoder leaves nothing in the caches of what
        // an encoder needs.
        for _ in 0..REPEAT {
            let coded = self.encoder.code(&looked, &coding, self.quality)?;
            let took = coded.steps.iter();
            let took = took.filter(|(step, _)| matches!(*step, "encode" | "entropy"));
            encode = encode.min(took.map(|(_, took)| *took).sum());
            bytes = coded.crossing.bytes().clone();
        }
        for _ in 0..REPEAT {
            let begin = Instant::now();
            let Content::Rgb(decoded) = self.decoder.content(&bytes)? else {
                bail!("the bundle is none for pictures");
            };
            rgb = self.restored(decoded, width, height);
            decode = decode.min(begin.elapsed());
        }
        Ok(Coded {
            bytes: bytes.len(),
            encode,
            decode,
            pixels: RgbImage::from_raw(width, height, rgb).context("pixels of another size")?,
        })
    }
}
