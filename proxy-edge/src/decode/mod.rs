//! From symbols to pixels, on threads of its own.
//!
//! A picture waits in a bounded queue; a decode thread takes it together with others of the same
//! window shape, decodes one batch of windows, and puts what is not finished back at the end of the
//! queue, so that a large picture never keeps small ones waiting for longer than a batch.

mod canvas;
mod job;
pub mod pool;
mod queue;
mod sheet;
pub mod torch;
mod window;

use sidecod_wire::bundle::Bundle;

pub use job::Decoded;
pub use queue::Full;
pub use sheet::Content;

/// A batch of windows: `[count, channels, height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Windows.
    pub count: usize,
    /// Channels of the latent.
    pub channels: usize,
    /// Rows of the latent.
    pub height: usize,
    /// Columns of the latent.
    pub width: usize,
}

impl Shape {
    /// Symbols in the batch.
    #[must_use]
    pub fn symbols(&self) -> usize {
        self.count * self.channels * self.height * self.width
    }

    /// Samples of the pixels that they decode to.
    #[must_use]
    pub fn samples(&self, stride: usize) -> usize {
        self.count * 3 * self.height * stride * self.width * stride
    }
}

/// The expensive half of a codec.
pub trait Decoder: Send + Sync {
    /// Decodes symbols of the given shape, coded at the quality of this index, into `pixels`:
    /// `[count, 3, height * stride, width * stride]`, nominally 0 to 1. A codec for features gives as
    /// many numbers for each window as [`Decoder::values`] says.
    ///
    /// # Errors
    /// [`DecoderError`] if the engine fails or gives another shape.
    fn decode(
        &self,
        symbols: &[f32],
        quality: usize,
        shape: Shape,
        pixels: &mut Vec<f32>,
    ) -> Result<(), DecoderError>;

    /// Latent places in one forward up to which windows are batched. Memory grows with them.
    fn batch_places(&self) -> usize;

    /// Numbers that a codec for features gives for each: those of the feature, or the outputs of the
    /// tail where that runs here. None: pixels.
    fn values(&self) -> Option<usize> {
        None
    }
}

/// A decoder cannot be loaded or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("decoder: {0}")]
pub struct DecoderError(pub String);

/// A bundle that is ready to decode.
pub struct Codec {
    /// Manifest, digest and tables.
    pub bundle: Bundle,
    /// Its decoder.
    pub decoder: Box<dyn Decoder>,
}
