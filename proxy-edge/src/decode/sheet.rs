//! What the windows of one input are put together to.

use super::canvas::Canvas;

/// What has been decoded of one input.
pub(super) enum Sheet {
    /// A picture, in one window or many.
    Picture(Canvas),
    /// The numbers of a feature's codec, which come from one window.
    Values {
        /// Rows and columns of the window.
        window: (usize, usize),
        /// The numbers, once they are there.
        values: Option<Vec<f32>>,
    },
}

/// What a codec gives for one input.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// `width * height * 3` bytes of a picture, row by row, red first.
    Rgb(Vec<u8>),
    /// A feature, or what the model's tail has made of it.
    Values(Vec<f32>),
}

impl Sheet {
    /// Rows and columns of each window, in latent places.
    pub fn window(&self) -> (usize, usize) {
        match self {
            Self::Picture(canvas) => canvas.window(),
            Self::Values { window, .. } => *window,
        }
    }

    /// Windows that are still to be added.
    pub fn left(&self) -> usize {
        match self {
            Self::Picture(canvas) => canvas.left(),
            Self::Values { values, .. } => usize::from(values.is_none()),
        }
    }

    /// First row and column of the window that is added after `ahead` others.
    pub fn corner(&self, ahead: usize) -> (usize, usize) {
        match self {
            Self::Picture(canvas) => canvas.corner(ahead),
            Self::Values { .. } => (0, 0),
        }
    }

    /// Adds what the next window has been decoded to.
    pub fn add(&mut self, decoded: &[f32]) {
        match self {
            Self::Picture(canvas) => canvas.add(decoded),
            Self::Values { values, .. } => *values = Some(decoded.to_vec()),
        }
    }

    /// The whole, once nothing is left.
    pub fn into_content(self) -> Content {
        match self {
            Self::Picture(canvas) => Content::Rgb(canvas.into_rgb()),
            Self::Values { values, .. } => Content::Values(values.unwrap_or_default()),
        }
    }
}
