//! From a request body to a frame, on threads of its own.

pub mod classical;
mod content_coding;
mod cores;
mod look;
mod parts;
mod pool;
mod strips;
mod tract;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sidecod_wire::bundle::{self, Bundle, BundleError};
use sidecod_wire::describe::FILES;
use sidecod_wire::entropy::{self, EntropyError};
use sidecod_wire::frame::{Frame, PictureSlot, Slot};
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{self, MediaError, MediaType, Picture};
use sidecod_wire::slot::{self, Form, Shape, SlotError};
use sidecod_wire::sound::{SoundCodec, SoundError};

use cores::Cores;

pub use content_coding::{CodingError, ContentCodings};
pub use look::{Looked, content_codings};
pub use parts::{Head, Local, Parts, Single};
pub use pool::{Full, Pool};
pub use tract::Tract;

/// Runs a net of the device: a codec's encoder, or a part of the model before it.
pub trait Encoder: Send + Sync {
    /// `fill` writes as many planes as the net takes, of `height` rows of `width`, over zeros; where it
    /// takes [patches](Self::patch), one for each channel and each pixel of a patch, row by row, of a
    /// place for each patch. Of a codec for pictures: red, green, blue, between 0 and 1, both sides
    /// multiples of the bundle's stride. Gives what comes out, plane by plane.
    ///
    /// # Errors
    /// [`EncoderError`] if the engine fails, which no picture should make it do.
    fn run(
        &self,
        height: usize,
        width: usize,
        fill: &dyn Fn(&mut [f32]),
    ) -> Result<Vec<f32>, EncoderError>;

    /// Pixels on a side of the patches in which it takes its planes, 1 for single pixels.
    fn patch(&self) -> usize {
        1
    }
}

/// The engine could not load or run a net.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct EncoderError {
    /// The net's file.
    pub file: &'static str,
    /// What the engine said.
    pub reason: String,
}

/// Why a bundle could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    Read(String, std::io::Error),
    /// A file is damaged, or the files do not belong together.
    #[error("{0}: {1}")]
    Bundle(String, BundleError),
    /// The engine does not take the encoder.
    #[error("{0}: {1}")]
    Encoder(String, EncoderError),
}

/// Why a request crosses as it is.
#[derive(Debug, thiserror::Error)]
pub enum NotCoded {
    /// There is no input in it.
    #[error("no photo and no sound in the body")]
    NoInput,
    /// There is a sound in it that is compressed already, and nothing else.
    #[error("{0} in the body, and of sounds only WAV with samples of 16, 24 or 32 bits is coded")]
    Sound(&'static str),
    /// A sound is not coded.
    #[error("input {slot}: {source}")]
    Samples {
        /// Index of the input, from 0.
        slot: usize,
        /// Why.
        source: SoundError,
    },
    /// There are several where one is wanted.
    #[error("{0} photos in the body, a model's answer is to one")]
    Several(usize),
    /// Its answer is none that is made of a part of a model.
    #[error("a call of gRPC, whose answer a part of a model here does not give")]
    Grpc,
    /// There is no such part of a model here.
    #[error("no such part of a model runs here")]
    NoPart,
    /// Its content codings do not come off.
    #[error(transparent)]
    ContentCoding(#[from] CodingError),
    /// Its inputs cannot be told.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// An input is not one that the codec gives back faithfully.
    #[error("input {slot}: {source}")]
    Media {
        /// Index of the input, from 0.
        slot: usize,
        /// What it is.
        source: MediaError,
    },
    /// The code is larger than the input.
    #[error("the frame has {frame} bytes, the body {body}")]
    NotSmaller {
        /// Bytes of the frame, or of the body with other photos.
        frame: usize,
        /// Bytes of the body.
        body: usize,
    },
    /// The encoder failed.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The symbols do not fit the tables.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl NotCoded {
    /// One word, for a metric.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoInput => "no_input",
            Self::Several(_) => "several_inputs",
            Self::Grpc => "grpc",
            Self::NoPart => "no_part",
            Self::ContentCoding(_) => "content_encoding",
            Self::Slots(_) => "slots",
            Self::Media {
                source: MediaError::Unsupported { .. },
                ..
            } => "unsupported",
            Self::Media {
                source: MediaError::TooLarge(_),
                ..
            }
            | Self::Samples {
                source: SoundError::TooLarge { .. },
                ..
            } => "too_large",
            Self::Media { .. } => "damaged",
            Self::Sound(_) | Self::Samples { .. } => "sound",
            Self::NotSmaller { .. } => "not_smaller",
            Self::Encoder(_) | Self::Entropy(_) => "encoder",
        }
    }
}

/// How the inputs of a route's requests are coded.
#[derive(Debug, Clone, Default)]
pub struct Coding {
    /// Where they stand.
    pub shape: Shape,
    /// Pixels to which the longer side of a picture is reduced before it is coded; 0: no bound.
    pub max_side: u32,
    /// Media type in which the edge writes photos, if not their own.
    pub written_as: Option<MediaType>,
    /// How the samples of sounds are coded.
    pub sound: SoundCodec,
}

/// What crosses the link in place of a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crossing {
    /// A frame, which the edge turns back into a body.
    Frame(Bytes),
    /// A body with other photos, which the edge passes on as it is.
    Body {
        /// The body, without any content coding.
        body: Bytes,
        /// `Content-Type`.
        content_type: Option<String>,
        /// Bytes of the JSON at its start, where the request has a header that tells them.
        json_length: Option<usize>,
    },
    /// Nothing: the device has the answer.
    Answer {
        /// `Content-Type` of the answer.
        content_type: String,
        /// Its body.
        body: Bytes,
    },
}

static NOTHING: Bytes = Bytes::new();

impl Crossing {
    /// Its bytes on the link.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Answer { .. } => &NOTHING,
            Self::Frame(bytes) | Self::Body { body: bytes, .. } => bytes,
        }
    }
}

/// What a request's body crosses as, and the time that each step took.
#[derive(Debug)]
pub struct Coded {
    /// What crosses.
    pub crossing: Crossing,
    /// Steps by name.
    pub steps: Vec<(&'static str, Duration)>,
}

/// A bundle with its engine.
#[derive(Clone)]
pub struct Codec {
    bundle: Bundle,
    encoder: Arc<dyn Encoder>,
    parts: Arc<Parts>,
    limits: Limits,
    cores: Cores,
}

impl Codec {
    /// Opens the bundle in a folder with the tract engine.
    ///
    /// # Errors
    /// [`OpenError`] that names the file.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, OpenError> {
        let read = |file: &str| {
            let file = folder.join(file);
            std::fs::read(&file).map_err(|error| OpenError::Read(file.display().to_string(), error))
        };
        let [manifest, encoder, tables] = FILES;
        let files = [read(manifest)?, read(encoder)?, read(tables)?];
        let files = files.each_ref().map(Vec::as_slice);
        Self::of(files, &folder.display().to_string(), limits)
    }

    /// Opens a bundle whose [`FILES`] are at hand; `name` is for errors.
    ///
    /// # Errors
    /// [`OpenError`] that names the file.
    pub fn of(files: [&[u8]; 3], name: &str, limits: Limits) -> Result<Self, OpenError> {
        let [manifest, encoder, tables] = files;
        let damaged = |error| OpenError::Bundle(name.to_owned(), error);
        let bundle = Bundle::parse(manifest, tables).map_err(damaged)?;
        let listed = bundle.manifest.verify(bundle::ENCODER, encoder);
        listed.map_err(damaged)?;
        let encoder = Tract::load(encoder, bundle::ENCODER, 3)
            .and_then(|encoder| encoder.in_patches(bundle.manifest.stride as usize))
            .map_err(|error| OpenError::Encoder(name.to_owned(), error))?;
        Ok(Self {
            bundle,
            encoder: Arc::new(encoder),
            parts: Arc::default(),
            limits,
            cores: Cores::new(1),
        })
    }

    /// The same with parts of the model, for options that run them here.
    #[must_use]
    pub fn with(mut self, parts: Arc<Parts>) -> Self {
        self.parts = parts;
        self
    }

    /// The same on so many cores: the strips of a large picture are shared among those that no other
    /// picture has.
    #[must_use]
    pub fn on(mut self, cores: usize) -> Self {
        self.cores = Cores::new(cores);
        self
    }

    /// The parts of the model.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Bounds on what an input may be.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the bundle is.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Makes the frame for a body at the quality of this index.
    ///
    /// # Errors
    /// [`NotCoded`] if the request has to cross as it is.
    pub fn code(
        &self,
        looked: &Looked,
        coding: &Coding,
        quality: usize,
    ) -> Result<Coded, NotCoded> {
        let mut clock = Clock::start();
        let body = &looked.body[..];
        let mut steps = vec![
            ("media", Duration::ZERO),
            ("encode", Duration::ZERO),
            ("entropy", Duration::ZERO),
            ("sound", Duration::ZERO),
        ];
        let mut slots = Vec::with_capacity(looked.found.inputs.len());
        for (index, input) in looked.found.inputs.iter().enumerate() {
            if let Form::Sound(text) = input.form {
                let sound = looked.sound(index, text, coding.sound, &self.limits)?;
                slots.push(Slot::Sound { text, sound });
                steps[3].1 += clock.lap();
                continue;
            }
            let picture = looked.read(index, &self.limits)?;
            let Picture {
                width,
                height,
                color,
                orientation,
                ..
            } = picture;
            let form = match coding.written_as {
                Some(media) => input.form.written_as(media, orientation),
                None => input.form,
            };
            let (coded_width, coded_height) = media::coded_size(width, height, coding.max_side);
            let picture = picture.resized(coded_width, coded_height);
            steps[0].1 += clock.lap();
            let symbols = self.symbols(&picture, quality)?;
            steps[1].1 += clock.lap();
            let code = entropy::encode(&symbols, &self.bundle.tables[quality])?;
            steps[2].1 += clock.lap();
            slots.push(Slot::Picture(PictureSlot {
                form,
                width,
                height,
                color,
                orientation,
                max_side: coding.max_side,
                code,
            }));
        }
        steps.retain(|(_, took)| !took.is_zero());
        let forms = slots.iter().map(Slot::form);
        let frame = Frame {
            bundle: self.bundle.digest.short(),
            quality: quality as u8,
            content_type: content_type(looked, forms),
            skeleton: slot::cut(body, &looked.found),
            slots,
        }
        .encode();
        smaller(frame.len(), body)?;
        Ok(Coded {
            crossing: Crossing::Frame(frame.into()),
            steps,
        })
    }
}

/// Refuses what would not save bytes.
fn smaller(crosses: usize, body: &[u8]) -> Result<(), NotCoded> {
    if crosses < body.len() {
        return Ok(());
    }
    Err(NotCoded::NotSmaller {
        frame: crosses,
        body: body.len(),
    })
}

/// The content-type for the model server: the request's own, unless it tells the type of a photo
/// that is the whole body and is written as another.
fn content_type(looked: &Looked, mut forms: impl ExactSizeIterator<Item = Form>) -> Option<String> {
    let own = looked.content_type.as_deref()?;
    let is_image = own
        .trim_start()
        .get(..6)
        .is_some_and(|s| s.eq_ignore_ascii_case("image/"));
    let written = match (forms.len(), forms.next()) {
        (1, Some(Form::File { media, .. })) if is_image => Some(media),
        _ => None,
    };
    match (written, MediaType::sniff(&looked.body)) {
        (Some(written), Some(sent)) if written != sent => Some(written.mime().to_owned()),
        _ => Some(own.to_owned()),
    }
}

/// Time since the last lap.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}
