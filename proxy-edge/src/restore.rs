//! From a frame back to the body that the app sent, with its pictures decoded.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sidecod_wire::entropy;
use sidecod_wire::frame::{Frame, FrameError, Slot};
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{MediaError, Picture};
use sidecod_wire::slot::{self, Filled, Skeleton};
use tokio::sync::Semaphore;

use crate::decode::pool::Pool;
use crate::decode::{Codec, Content};
use crate::fail::Fail;
use crate::point::Place;
use crate::relay::Steps;
use crate::workers::{Broken, Workers};

/// Pixels that one permit of the budget stands for.
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
            FrameError::Limit { .. } | FrameError::Picture { .. } => {
                Self::TooLarge(error.to_string())
            }
            other => Self::BadFrame(other.to_string()),
        }
    }
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

    /// Decodes the pictures of a frame and puts them back where they were.
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
                "the pictures of the frame have more than {limit} pixels together"
            )));
        }
        let _pixels = self
            .pixels
            .try_acquire_many(permits as u32)
            .map_err(|_| Fail::Overloaded("as many pixels as allowed are in hand"))?;

        let Frame {
            skeleton,
            content_type,
            slots,
            quality,
            ..
        } = frame;
        let sizes = slots.iter().map(Slot::coded_size).collect();
        let (slots, decoded, queued) = self.decode(&codec, quality.into(), slots, sizes).await?;
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
        frame: Frame,
        begin: Instant,
        steps: &mut Steps,
    ) -> Result<Vec<f32>, Fail> {
        let (Some(point), 1) = (&codec.bundle.manifest.point, frame.slots.len()) else {
            let slots = frame.slots.len();
            return Err(Fail::BadFrame(format!(
                "a frame of a feature has one slot, this one {slots}"
            )));
        };
        let sizes = vec![point.size()];
        let (_, decoded, queued) = self
            .decode(codec, frame.quality.into(), frame.slots, sizes)
            .await?;
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

    /// What each slot decodes to, and how long the one waited that waited longest. `sizes` are width
    /// and height of each as it was coded.
    async fn decode(
        &self,
        codec: &Arc<Codec>,
        quality: usize,
        slots: Vec<Slot>,
        sizes: Vec<(u32, u32)>,
    ) -> Result<(Vec<Slot>, Vec<Content>, Duration), Fail> {
        let unpacking = codec.clone();
        let (slots, sizes, symbols) = self
            .workers
            .run(move || {
                let bundle = &unpacking.bundle;
                let symbols: Result<Vec<_>, _> = slots
                    .iter()
                    .zip(&sizes)
                    .map(|(slot, &(width, height))| {
                        let (height, width) = bundle.manifest.latent_size(width, height);
                        let channels = bundle.manifest.channels;
                        let tables = &bundle.tables[quality];
                        entropy::decode(&slot.code, channels, height, width, tables)
                    })
                    .collect();
                (slots, sizes, symbols)
            })
            .await?;
        let symbols = symbols.map_err(|error| Fail::BadFrame(error.to_string()))?;
        let mut waiting = Vec::with_capacity(slots.len());
        for (size, symbols) in sizes.into_iter().zip(symbols) {
            let receiver = self
                .pool
                .submit(codec.clone(), quality, symbols, size)
                .map_err(|_| Fail::Overloaded("the decode queue is full"))?;
            waiting.push(receiver);
        }
        let mut contents = Vec::with_capacity(slots.len());
        let mut queued = Duration::ZERO;
        for receiver in waiting {
            let decoded = receiver
                .await
                .map_err(|_| Fail::DecodeFailed("the decode threads have ended".to_owned()))?
                .map_err(|error| Fail::DecodeFailed(error.to_string()))?;
            queued = queued.max(decoded.queued);
            contents.push(decoded.content);
        }
        Ok((slots, contents, queued))
    }
}

/// What the pictures take of the budget.
fn permits(slots: &[Slot]) -> u64 {
    slots
        .iter()
        .map(|slot| (u64::from(slot.width) * u64::from(slot.height)).div_ceil(PIXELS_A_PERMIT))
        .sum()
}

/// Writes each picture in the form that it came in, and fills the skeleton.
fn render(
    skeleton: &Skeleton,
    slots: Vec<Slot>,
    pictures: Vec<Content>,
) -> Result<Filled, MediaError> {
    let mut parts = Vec::with_capacity(slots.len());
    for (slot, content) in slots.into_iter().zip(pictures) {
        // A codec for pictures gives nothing else.
        let Content::Rgb(rgb) = content else {
            continue;
        };
        let (width, height) = slot.coded_size();
        let picture = Picture {
            width,
            height,
            color: slot.color,
            orientation: slot.orientation,
            rgb,
        }
        .resized(slot.width, slot.height);
        parts.push(slot.form.write(&picture)?);
    }
    Ok(slot::fill(skeleton, &parts))
}
