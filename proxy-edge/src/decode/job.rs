//! One picture on its way through the decode threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sidecod_wire::entropy::Symbols;
use tokio::sync::oneshot;

use super::canvas::Canvas;
use super::sheet::{Content, Sheet};
use super::{Codec, DecoderError};

/// A decoded picture, or feature.
#[derive(Debug)]
pub struct Decoded {
    /// What it is.
    pub content: Content,
    /// How long it waited before its first window was decoded.
    pub queued: Duration,
}

/// A picture that is being decoded.
pub(super) struct Job {
    codec: Arc<Codec>,
    quality: usize,
    symbols: Symbols,
    sheet: Sheet,
    submitted: Instant,
    started: Option<Instant>,
    answer: oneshot::Sender<Result<Decoded, DecoderError>>,
}

/// What may be decoded together: windows of one size of one codec at one quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// The start of the bundle's digest.
    pub codec: [u8; 8],
    quality: usize,
    window: (usize, usize),
}

impl Job {
    pub fn new(
        codec: Arc<Codec>,
        quality: usize,
        symbols: Symbols,
        size: (u32, u32),
        answer: oneshot::Sender<Result<Decoded, DecoderError>>,
    ) -> Self {
        let manifest = &codec.bundle.manifest;
        let latent = (symbols.height, symbols.width);
        let sheet = if manifest.point.is_some() {
            Sheet::Values {
                window: latent,
                values: None,
            }
        } else {
            Sheet::Picture(Canvas::new(
                size,
                latent,
                manifest.tile as usize,
                manifest.overlap as usize,
                manifest.stride as usize,
            ))
        };
        Self {
            codec,
            quality,
            symbols,
            sheet,
            submitted: Instant::now(),
            started: None,
            answer,
        }
    }

    pub fn key(&self) -> Key {
        Key {
            codec: self.codec.bundle.digest.short(),
            quality: self.quality,
            window: self.sheet.window(),
        }
    }

    pub fn codec(&self) -> &Arc<Codec> {
        &self.codec
    }

    /// Index of the quality that it was coded at.
    pub fn quality(&self) -> usize {
        self.quality
    }

    /// Rows and columns of each window.
    pub fn window(&self) -> (usize, usize) {
        self.sheet.window()
    }

    /// Windows that are still to be decoded.
    pub fn left(&self) -> usize {
        self.sheet.left()
    }

    /// Places of the latent in them.
    pub fn places_left(&self) -> usize {
        let (height, width) = self.window();
        self.left() * height * width
    }

    /// Whether nobody waits for the picture any more.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Appends the symbols of the window that comes after `ahead` others.
    pub fn gather(&mut self, ahead: usize, batch: &mut Vec<f32>) {
        self.started.get_or_insert_with(Instant::now);
        let (top, left) = self.sheet.corner(ahead);
        let (high, wide) = self.sheet.window();
        let Symbols { height, width, .. } = self.symbols;
        for channel in 0..self.symbols.channels {
            for y in top..top + high {
                let from = (channel * height + y) * width + left;
                batch.extend(
                    self.symbols.data[from..from + wide]
                        .iter()
                        .copied()
                        .map(f32::from),
                );
            }
        }
    }

    /// Takes the pixels of the next window.
    pub fn add(&mut self, pixels: &[f32]) {
        self.sheet.add(pixels);
    }

    /// Hands the picture over.
    pub fn finish(self) {
        let started = self.started.unwrap_or(self.submitted);
        // An error means that nobody waits for it any more.
        let _ = self.answer.send(Ok(Decoded {
            content: self.sheet.into_content(),
            queued: started - self.submitted,
        }));
    }

    /// Gives the picture up.
    pub fn fail(self, error: DecoderError) {
        let _ = self.answer.send(Err(error));
    }
}
