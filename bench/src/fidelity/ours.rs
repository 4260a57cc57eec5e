//! Our codecs, by the code that the sidecars run: tract and the entropy coder on one side, the
//! entropy decoder and libtorch on the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use sidecod_device::encode::{self, Coding};
use sidecod_edge::bundles;
use sidecod_edge::config::Device;
use sidecod_edge::decode::pool::{Pool, Settings};
use sidecod_edge::decode::torch::Engine;
use sidecod_edge::decode::{self, Decoded};
use sidecod_wire::entropy;
use sidecod_wire::frame::Frame;
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{self, Color, Picture};
use sidecod_wire::slot::Request;

use super::{Codec, Coded};
use crate::stack::workspace;

/// Times that a picture is coded; the shortest counts.
const REPEAT: usize = 3;

/// One bundle at one quality and one bound on the longer side.
pub struct Ours {
    name: String,
    label: String,
    quality: usize,
    max_side: u32,
    encoder: Arc<encode::Codec>,
    codec: Arc<decode::Codec>,
    pool: Arc<Pool>,
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

/// Opens bundles at every quality, without a bound on the longer side and with each of `max_sides`.
pub fn open(folders: &[PathBuf], max_sides: &[u32]) -> Result<Vec<Ours>> {
    let engine = Engine::start(Device::Auto, 1, 1)?;
    let mut all = Vec::new();
    for (folder, stored) in folders.iter().zip(bundles::read_all(folders)?) {
        let encoder = Arc::new(encode::Codec::open(folder, Limits::default())?);
        let decoder = Box::new(engine.load(&stored)?);
        let codec = Arc::new(decode::Codec {
            bundle: stored.bundle,
            decoder,
        });
        let settings = Settings {
            // Nobody is hurried.
            max_wait: Duration::from_hours(1),
            threads: 1,
            queue: 1,
            max_batch: 1,
        };
        let (pool, warmed) = Pool::start(std::slice::from_ref(&codec), settings)?;
        for warmed in warmed {
            warmed
                .blocking_recv()
                .context("the decode thread has ended")??;
        }
        let pool = Arc::new(pool);
        let manifest = &codec.bundle.manifest;
        for max_side in std::iter::once(0).chain(max_sides.iter().copied()) {
            for (quality, listed) in manifest.qualities.iter().enumerate() {
                all.push(Ours {
                    name: match max_side {
                        0 => manifest.name.clone(),
                        bound => format!("{}@{bound}", manifest.name),
                    },
                    label: listed.name.clone(),
                    quality,
                    max_side,
                    encoder: encoder.clone(),
                    codec: codec.clone(),
                    pool: pool.clone(),
                });
            }
        }
    }
    Ok(all)
}

impl Ours {
    fn decode(&self, frame: &[u8]) -> Result<Decoded> {
        let frame = Frame::decode(frame, &Limits::default())?;
        let [slot] = &frame.slots[..] else {
            bail!("the frame has {} slots", frame.slots.len());
        };
        let bundle = &self.codec.bundle;
        let channels = bundle.manifest.channels;
        let size = slot.coded_size();
        let (height, width) = bundle.manifest.latent_size(size.0, size.1);
        let tables = &bundle.tables[self.quality];
        let symbols = entropy::decode(&slot.code, channels, height, width, tables)?;
        let Ok(waiting) = self
            .pool
            .submit(self.codec.clone(), self.quality, symbols, size)
        else {
            bail!("the decode queue is full");
        };
        Ok(waiting
            .blocking_recv()
            .context("the decode thread has ended")??)
    }
}

impl Ours {
    /// Pixels at the picture's own size.
    fn restored(&self, decoded: Decoded, width: u32, height: u32) -> Vec<u8> {
        let (coded_width, coded_height) = media::coded_size(width, height, self.max_side);
        let picture = Picture {
            width: coded_width,
            height: coded_height,
            color: Color::Rgb,
            orientation: 1,
            rgb: decoded.rgb,
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
        let request = Request {
            body: &file,
            content_type: Some("image/png"),
            json_length: None,
        };
        let coding = Coding {
            quality: self.quality,
            max_side: self.max_side,
            ..Coding::default()
        };
        let (mut encode, mut decode) = (Duration::MAX, Duration::MAX);
        let mut result = None;
        for _ in 0..REPEAT {
            let coded = self.encoder.code(&request, &coding)?;
            let took = coded.steps.iter();
            let took = took.filter(|(step, _)| matches!(*step, "encode" | "entropy"));
            encode = encode.min(took.map(|(_, took)| *took).sum());
            let begin = Instant::now();
            let decoded = self.decode(&coded.frame)?;
            let rgb = self.restored(decoded, width, height);
            decode = decode.min(begin.elapsed());
            result = Some((coded.frame.len(), rgb));
        }
        let (bytes, rgb) = result.context("coded at least once")?;
        Ok(Coded {
            bytes,
            encode,
            decode,
            pixels: RgbImage::from_raw(width, height, rgb).context("pixels of another size")?,
        })
    }
}
