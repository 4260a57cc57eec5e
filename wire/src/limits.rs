//! Bounds on what a sidecar takes from outside.

use schemars::JsonSchema;
use serde::Deserialize;

/// Bounds that are checked before memory is taken for what a body or a frame declares.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest side of a picture, in pixels.
    pub max_side: u32,
    /// Area of a picture, in pixels.
    pub max_pixels: u64,
    /// Samples of a sound, all channels together.
    pub max_samples: u64,
    /// Inputs in one request.
    pub max_slots: usize,
    /// Bytes of a body without its inputs.
    pub max_skeleton: usize,
    /// Bytes of one code.
    pub max_code: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_side: 16_384,
            max_pixels: 50_000_000,
            max_samples: 32_000_000,
            max_slots: 16,
            max_skeleton: 1 << 20,
            max_code: 8 << 20,
        }
    }
}

impl Limits {
    /// Whether a picture of this size may be taken.
    ///
    /// # Errors
    /// [`TooLarge`] with the size and the limit that it breaks.
    pub fn check_picture(&self, width: u32, height: u32) -> Result<(), TooLarge> {
        if width > self.max_side || height > self.max_side {
            return Err(TooLarge::Side {
                width,
                height,
                limit: self.max_side,
            });
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(TooLarge::Area {
                width,
                height,
                limit: self.max_pixels,
            });
        }
        Ok(())
    }
}

/// A picture is larger than the limits allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// A side is too long.
    #[error("picture is {width}x{height}, limit {limit} pixels a side")]
    Side {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Longest side allowed.
        limit: u32,
    },
    /// The area is too large.
    #[error("picture is {width}x{height}, limit {limit} pixels in all")]
    Area {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Largest area allowed.
        limit: u64,
    },
}
