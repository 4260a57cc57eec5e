//! From a frame back to the body that the app sent, with its pictures and sounds decoded.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sidecod_wire::entropy::{self, EntropyError};
use sidecod_wire::frame::{Frame, FrameError, PictureSlot, Slot};
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{MediaError, Picture};
use sidecod_wire::slot::{self, Filled, Skeleton};
use sidecod_wire::sound::SoundError;
use tokio::sync::Semaphore;

use crate::decode::pool::Pool;
use crate::decode::{Codec, Content};
use crate::fail::Fail;
use crate::point::Place;
use crate::relay::Steps;
use crate::workers::{Broken, Workers};

/// Pixels that one permit of the budget stands for. A sample of a sound counts as one.
const PIXELS_A_PERMIT: u64 = 1024;

/// What turns frames into bodies.
pub struct Restorer {
    codecs: HashMap<[u8; 8], Arc<Codec>>,
    places: HashMap<[u8; 8], Arc<Place>>,
    pool: Pool,
    workers: Workers,
    limits: Limits,
    pixels: Arc<Semaphore>,
    max_permits: u32,
}

/// What a frame was.
pub enum Restored {
    /// A request of the app.
    Body(RestoredBody),
    /// A feature of the app's input, or the outputs of the tail behind it.
    Values(Arc<Place>, Vec<f32>),
}

/// A request body as the app sent it, but for what the codec lost.
#[derive(Debug)]
pub struct RestoredBody {
    /// The body.
    pub body: Vec<u8>,
    /// The content-type of the app's request.
    pub content_type: Option<String>,
    /// Bytes of the JSON at its start, where the request has a header that tells them.
    pub json_length: Option<usize>,
}

impl From<FrameError> for Fail {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Limit { .. } | FrameError::Picture { .. } | FrameError::Sound { .. } => {
                Self::TooLarge(error.to_string())
            }
            other => Self::BadFrame(other.to_string()),
        }
    }
}

/// An input cannot be written as it was.
#[derive(Debug, thiserror::Error)]
enum RenderError {
    #[error(transparent)]
    Picture(#[from] MediaError),
    #[error(transparent)]
    Sound(#[from] SoundError),
}

impl From<Broken> for Fail {
    fn from(error: Broken) -> Self {
        Self::DecodeFailed(error.to_string())
    }
}

impl Restorer {
    /// Uses these codecs, whose decoders `pool` runs, for at most `max_pixels` at a time. `places`
    /// say by the bundle's digest what is done with features.
    #[must_use]
    pub fn new(
        codecs: Vec<Arc<Codec>>,
        places: HashMap<[u8; 8], Arc<Place>>,
        pool: Pool,
        limits: Limits,
        max_pixels: u64,
    ) -> Self {
        let permits = max_pixels.div_ceil(PIXELS_A_PERMIT);
        let max_permits = u32::try_from(permits).unwrap_or(u32::MAX >> 4);
        Self {
            codecs: codecs
                .into_iter()
                .map(|codec| (codec.bundle.digest.short(), codec))
                .collect(),
            places,
            pool,
            workers: Workers::new(),
            limits,
            pixels: Arc::new(Semaphore::new(max_permits as usize)),
            max_permits,
        }
    }

    /// Decodes the inputs of a frame and puts them back where they were.
    ///
    /// # Errors
    /// [`Fail`] of any kind that has to do with a frame.
    pub async fn restore(&self, frame: Bytes, steps: &mut Steps) -> Result<Restored, Fail> {
        let begin = Instant::now();
        let limits = self.limits.clone();
        let frame = self
            .workers
            .run(move || Frame::decode(&frame, &limits))
            .await??;
        let codec = self.codec(&frame)?;
        if let Some(place) = self.places.get(&frame.bundle) {
            let values = self.values(&codec, frame, begin, steps).await?;
            return Ok(Restored::Values(place.clone(), values));
        }
        let permits = permits(&frame.slots);
        if permits > u64::from(self.max_permits) {
            let limit = u64::from(self.max_permits) * PIXELS_A_PERMIT;
            return Err(Fail::TooLarge(format!(
                "the inputs of the frame have more than {limit} pixels and samples together"
            )));
        }
        let _pixels = self
            .pixels
            .try_acquire_many(permits as u32)
            .map_err(|_| Fail::Overloaded("as many pixels as allowed are in hand"))?;

        let Frame {
            skeleton,
            content_type,
            mut slots,
            quality,
            ..
        } = frame;
        let pictures = slots.iter_mut().filter_map(|slot| match slot {
            Slot::Picture(picture) => {
                Some((std::mem::take(&mut picture.code), picture.coded_size()))
            }
            Slot::Sound { .. } => None,
        });
        let pictures = pictures.collect();
        let (decoded, queued) = self.decode(&codec, quality.into(), pictures).await?;
        steps.note("queue", queued);
        steps.note("decode", begin.elapsed().saturating_sub(queued));

        let begin = Instant::now();
        let body = self
            .workers
            .run(move || render(&skeleton, slots, decoded))
            .await?;
        let filled = body.map_err(|error| Fail::DecodeFailed(error.to_string()))?;
        steps.note("render", begin.elapsed());
        Ok(Restored::Body(RestoredBody {
            body: filled.body,
            content_type,
            json_length: filled.json_length,
        }))
    }

    /// What the codec of a feature gives for the one input of a frame.
    async fn values(
        &self,
        codec: &Arc<Codec>,
        mut frame: Frame,
        begin: Instant,
        steps: &mut Steps,
    ) -> Result<Vec<f32>, Fail> {
        let (Some(point), [Slot::Picture(picture)]) =
            (&codec.bundle.manifest.point, &mut frame.slots[..])
        else {
            let slots = frame.slots.len();
            return Err(Fail::BadFrame(format!(
                "a frame of a feature has one slot, of a picture, this one has {slots}"
            )));
        };
        let feature = vec![(std::mem::take(&mut picture.code), point.size())];
        let (decoded, queued) = self.decode(codec, frame.quality.into(), feature).await?;
        steps.note("queue", queued);
        steps.note("decode", begin.elapsed().saturating_sub(queued));
        match decoded.into_iter().next() {
            Some(Content::Values(values)) => Ok(values),
            _ => Err(Fail::DecodeFailed(
                "the decoder gives no feature".to_owned(),
            )),
        }
    }

    fn codec(&self, frame: &Frame) -> Result<Arc<Codec>, Fail> {
        let codec = self.codecs.get(&frame.bundle).ok_or_else(|| {
            let digits = frame.bundle.iter().fold(String::new(), |mut text, byte| {
                // Writing to a string does not fail.
                let _ = write!(text, "{byte:02x}");
                text
            });
            Fail::UnknownBundle(digits)
        })?;
        let qualities = codec.bundle.manifest.qualities.len();
        if usize::from(frame.quality) >= qualities {
            return Err(Fail::BadFrame(format!(
                "frame quality is {}, the bundle has {qualities}",
                frame.quality
            )));
        }
        Ok(codec.clone())
    }

    /// What codes decode to, and how long the one waited that waited longest. Each comes with width and
    /// height as it was coded.
    async fn decode(
        &self,
        codec: &Arc<Codec>,
        quality: usize,
        packed: Vec<(Vec<u8>, (u32, u32))>,
    ) -> Result<(Vec<Content>, Duration), Fail> {
        let unpacking = codec.clone();
        let symbols = self
            .workers
            .run(move || {
                let bundle = &unpacking.bundle;
                let unpacked = packed.into_iter().map(|(code, size)| {
                    let (height, width) = bundle.manifest.latent_size(size.0, size.1);
                    let channels = bundle.manifest.channels;
                    let tables = &bundle.tables[quality];
                    let symbols = entropy::decode(&code, channels, height, width, tables)?;
                    Ok::<_, EntropyError>((symbols, size))
                });
                unpacked.collect::<Result<Vec<_>, _>>()
            })
            .await?;
        let symbols = symbols.map_err(|error| Fail::BadFrame(error.to_string()))?;
        let mut waiting = Vec::with_capacity(symbols.len());
        for (symbols, size) in symbols {
            let receiver = self
                .pool
                .submit(codec.clone(), quality, symbols, size)
                .map_err(|_| Fail::Overloaded("the decode queue is full"))?;
            waiting.push(receiver);
        }
        let mut contents = Vec::with_capacity(waiting.len());
        let mut queued = Duration::ZERO;
        for receiver in waiting {
            let decoded = receiver
                .await
                .map_err(|_| Fail::DecodeFailed("the decode threads have ended".to_owned()))?
                .map_err(|error| Fail::DecodeFailed(error.to_string()))?;
            queued = queued.max(decoded.queued);
            contents.push(decoded.content);
        }
        Ok((contents, queued))
    }
}

/// What the inputs take of the budget.
fn permits(slots: &[Slot]) -> u64 {
    let permits = slots.iter().map(|slot| match slot {
        Slot::Picture(picture) => u64::from(picture.width) * u64::from(picture.height),
        Slot::Sound { sound, .. } => sound.samples.all(),
    });
    permits.map(|each| each.div_ceil(PIXELS_A_PERMIT)).sum()
}

/// Writes each input in the form that it came in, and fills the skeleton.
fn render(
    skeleton: &Skeleton,
    slots: Vec<Slot>,
    pictures: Vec<Content>,
) -> Result<Filled, RenderError> {
    let mut parts = Vec::with_capacity(slots.len());
    let mut pictures = pictures.into_iter();
    for slot in slots {
        parts.push(match slot {
            Slot::Sound { text, sound } => text.write(sound.file()?),
            // There are as many pictures as slots for them, and a codec for pictures gives nothing else.
            Slot::Picture(slot) => match pictures.next() {
                Some(Content::Rgb(rgb)) => write(&slot, rgb)?,
                _ => Vec::new(),
            },
        });
    }
    Ok(slot::fill(skeleton, &parts))
}

/// A picture in the form and the size that it came in.
fn write(slot: &PictureSlot, rgb: Vec<u8>) -> Result<Vec<u8>, MediaError> {
    let (width, height) = slot.coded_size();
    let picture = Picture {
        width,
        height,
        color: slot.color,
        orientation: slot.orientation,
        rgb,
    }
    .resized(slot.width, slot.height);
    slot.form.write(&picture)
}
