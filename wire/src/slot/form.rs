//! How an input is written in a body, and the way from there to pixels and back.

use crate::limits::Limits;
use crate::media::{self, MediaError, MediaType, Picture};
use crate::sound::{SoundType, Wav};
use crate::tensor::Tensor;

use super::Text;

/// What is said where a picture is wanted of a sound.
const NO_PICTURE: MediaError = MediaError::Unsupported {
    media: SoundType::Wav.mime(),
    what: "a sound",
};

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
    /// A sound's file, with samples that are coded; how its bytes stand in the body.
    Sound(Text),
}

impl Form {
    /// The form of what stands in a body, if that is the file of a photo, or of a sound that is coded.
    pub(super) fn of(bytes: &[u8], text: Text) -> Option<Self> {
        let begin = text.begin(bytes)?;
        if let Some(media) = MediaType::sniff(&begin) {
            return Some(Self::File { media, text });
        }
        let wav = SoundType::sniff(&begin) == Some(SoundType::Wav);
        (wav && Wav::parse(&text.read(bytes)?).is_some()).then_some(Self::Sound(text))
    }

    /// The pixels of an input, `bytes` being what stands in the body.
    ///
    /// # Errors
    /// [`MediaError`] where the codec would not give it back faithfully, and where it is a sound.
    /// Nothing of the picture's size is allocated before `limits` have been checked.
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
            Self::Sound(_) => Err(NO_PICTURE),
        }
    }

    /// Width and height of an input, `bytes` being what stands in the body, without decoding it;
    /// none where its header says none.
    #[must_use]
    pub fn size(&self, bytes: &[u8]) -> Option<(u32, u32)> {
        match self {
            Self::File { text, .. } => media::size(&text.read(bytes)?),
            Self::Tensor(tensor) => Some((tensor.width, tensor.height)),
            Self::Sound(_) => None,
        }
    }

    /// What stands in the body for a picture.
    ///
    /// # Errors
    /// [`MediaError`] if the media type cannot hold it, or is that of a sound.
    pub fn write(&self, picture: &Picture) -> Result<Vec<u8>, MediaError> {
        match self {
            Self::File { media, text } => Ok(text.write(media::encode(picture, *media)?)),
            Self::Tensor(tensor) => Ok(tensor.write(picture)),
            Self::Sound(_) => Err(NO_PICTURE),
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
