//! How an input is written in a body, and the way from there to pixels and back.

use crate::limits::Limits;
use crate::media::{self, MediaError, MediaType, Picture};
use crate::tensor::Tensor;

use super::Text;

/// How an input is written in a body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// A photo's file.
    File {
        /// Its media type.
        media: MediaType,
        /// How its bytes stand in the body.
        text: Text,
    },
    /// The numbers of its pixels.
    Tensor(Tensor),
}

impl Form {
    /// The form of a file, if its bytes are those of a photo.
    pub(super) fn file(bytes: &[u8], text: Text) -> Option<Self> {
        let media = MediaType::sniff(bytes)?;
        Some(Self::File { media, text })
    }

    /// The form of a base64 text, if it is one of a photo.
    pub(super) fn base64(letters: &[u8], text: Text) -> Option<Self> {
        Self::file(&text.begin(letters)?, text)
    }

    /// The pixels of an input, `bytes` being what stands in the body.
    ///
    /// # Errors
    /// [`MediaError`] where the codec would not give it back faithfully. Nothing of the picture's
    /// size is allocated before `limits` have been checked.
    pub fn read(&self, bytes: &[u8], limits: &Limits) -> Result<Picture, MediaError> {
        match self {
            Self::File { media, text } => {
                let file = text.read(bytes).ok_or_else(|| MediaError::Damaged {
                    media: media.mime(),
                    reason: "its base64 text has other characters or a wrong length".to_owned(),
                })?;
                media::decode(&file, limits)
            }
            Self::Tensor(tensor) => tensor.read(bytes, limits),
        }
    }

    /// Width and height of an input, `bytes` being what stands in the body, without decoding it;
    /// none where its header says none.
    #[must_use]
    pub fn size(&self, bytes: &[u8]) -> Option<(u32, u32)> {
        match self {
            Self::File { text, .. } => media::size(&text.read(bytes)?),
            Self::Tensor(tensor) => Some((tensor.width, tensor.height)),
        }
    }

    /// What stands in the body for a picture.
    ///
    /// # Errors
    /// [`MediaError::Encode`] if the media type cannot hold it.
    pub fn write(&self, picture: &Picture) -> Result<Vec<u8>, MediaError> {
        match self {
            Self::File { media, text } => Ok(text.write(media::encode(picture, *media)?)),
            Self::Tensor(tensor) => Ok(tensor.write(picture)),
        }
    }

    /// The same form with another media type, where it is a file whose pixels need no orientation
    /// that the other type could not tell.
    #[must_use]
    pub fn written_as(self, other: MediaType, orientation: u8) -> Self {
        match self {
            Self::File { text, .. } if other != MediaType::Bmp || orientation == 1 => {
                Self::File { media: other, text }
            }
            same => same,
        }
    }
}
