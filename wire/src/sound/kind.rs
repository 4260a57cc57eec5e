//! The types of sounds, by their first bytes.

/// Type of a sound's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundType {
    /// `audio/wav`
    Wav,
    /// `audio/flac`
    Flac,
    /// `audio/ogg`: Opus or Vorbis.
    Ogg,
    /// `audio/mpeg`
    Mp3,
    /// `audio/mp4`
    Mp4,
    /// `audio/webm`
    WebM,
}

impl SoundType {
    /// Tells a sound's type by its first bytes.
    #[must_use]
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'A',
                b'V',
                b'E',
                ..,
            ] => Some(Self::Wav),
            [b'f', b'L', b'a', b'C', ..] => Some(Self::Flac),
            [b'O', b'g', b'g', b'S', ..] => Some(Self::Ogg),
            // A tag, or the first frame: layer III, with a bit rate and a sampling rate that there are.
            [b'I', b'D', b'3', ..] => Some(Self::Mp3),
            [0xff, layer, rates, ..]
                if matches!(layer & 0xfe, 0xfa | 0xf2 | 0xe2)
                    && rates >> 4 != 0xf
                    && rates & 0xc != 0xc =>
            {
                Some(Self::Mp3)
            }
            [_, _, _, _, b'f', b't', b'y', b'p', b'M', b'4', b'A', ..] => Some(Self::Mp4),
            [0x1a, 0x45, 0xdf, 0xa3, ..] => Some(Self::WebM),
            _ => None,
        }
    }

    /// The name that IANA registers, or what is written in its place.
    #[must_use]
    pub const fn mime(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Flac => "audio/flac",
            Self::Ogg => "audio/ogg",
            Self::Mp3 => "audio/mpeg",
            Self::Mp4 => "audio/mp4",
            Self::WebM => "audio/webm",
        }
    }
}
