//! Photos written anew as JPEG or WebP: smaller at their own size in pixels, and readable by the
//! model server without any decoder at the edge.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{self, MediaError, MediaType, Picture};
use sidecod_wire::slot::{self, Form};

use super::{Clock, Coded, Crossing, Looked, NotCoded, content_type, smaller};

/// WebP's effort, 0 to 6. Half of the time of the default 4 for a few per cent more bytes.
const WEBP_METHOD: i32 = 2;
/// Longest side of a WebP in pixels.
const WEBP_SIDE: u32 = 16_383;

/// A lossy image codec at a quality of 1 to 100, as libjpeg and libwebp count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Classical {
    /// Baseline JPEG, chroma at half the resolution, Huffman tables of its own.
    Jpeg(u8),
    /// WebP.
    WebP(u8),
}

impl Classical {
    fn media(self) -> MediaType {
        match self {
            Self::Jpeg(_) => MediaType::Jpeg,
            Self::WebP(_) => MediaType::WebP,
        }
    }

    /// Writes a picture as a file, with its orientation.
    ///
    /// # Errors
    /// [`MediaError::Encode`] where the codec cannot hold it.
    pub fn encode(self, picture: &Picture) -> Result<Vec<u8>, MediaError> {
        match self {
            Self::Jpeg(quality) => media::encode_jpeg(picture, quality),
            Self::WebP(quality) => webp(picture, quality),
        }
    }

    /// The request with all its photos written by this codec. A photo that would become larger
    /// stays as it is.
    ///
    /// # Errors
    /// [`NotCoded`]; tensors are no files, and bodies that do not become smaller stay as they are.
    pub fn code(self, looked: &Looked, limits: &Limits) -> Result<Coded, NotCoded> {
        let mut clock = Clock::start();
        let mut steps = vec![("media", Duration::ZERO), ("classical", Duration::ZERO)];
        let mut parts = Vec::with_capacity(looked.found.inputs.len());
        let mut forms = Vec::with_capacity(looked.found.inputs.len());
        for (index, input) in looked.found.inputs.iter().enumerate() {
            let slot = index;
            let failed = |source| NotCoded::Media { slot, source };
            let Form::File { text, .. } = input.form else {
                return Err(failed(MediaError::Unsupported {
                    media: self.media().mime(),
                    what: "a tensor",
                }));
            };
            let picture = looked.read(index, limits)?;
            steps[0].1 += clock.lap();
            let written = text.write(self.encode(&picture).map_err(failed)?);
            let (form, part) = if written.len() < input.range.len() {
                let media = self.media();
                (Form::File { media, text }, written)
            } else {
                let same = looked.body[input.range.clone()].to_vec();
                (input.form, same)
            };
            parts.push(part);
            forms.push(form);
            steps[1].1 += clock.lap();
        }
        let filled = slot::fill(&slot::cut(&looked.body, &looked.found), &parts);
        smaller(filled.body.len(), &looked.body)?;
        Ok(Coded {
            crossing: Crossing::Body {
                body: Bytes::from(filled.body),
                content_type: content_type(looked, forms.iter()),
                json_length: filled.json_length,
            },
            steps,
        })
    }
}

impl fmt::Display for Classical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jpeg(quality) => write!(f, "jpeg:{quality}"),
            Self::WebP(quality) => write!(f, "webp:{quality}"),
        }
    }
}

impl FromStr for Classical {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (codec, quality) = text.split_once(':').unwrap_or((text, ""));
        let make = match codec {
            "jpeg" => Self::Jpeg,
            "webp" => Self::WebP,
            _ => return Err(format!("no classical codec is named {codec}")),
        };
        match quality.parse() {
            Ok(quality @ 1..=100) => Ok(make(quality)),
            _ => Err(format!(
                "{codec} has qualities from 1 to 100, not {quality:?}"
            )),
        }
    }
}

fn webp(picture: &Picture, quality: u8) -> Result<Vec<u8>, MediaError> {
    let &Picture { width, height, .. } = picture;
    let failed = |reason: String| MediaError::Encode {
        media: MediaType::WebP.mime(),
        width,
        height,
        reason,
    };
    let pixels = u64::from(width) * u64::from(height);
    if pixels * 3 != picture.rgb.len() as u64 || pixels == 0 {
        return Err(failed(format!("{} bytes of pixels", picture.rgb.len())));
    }
    if width.max(height) > WEBP_SIDE {
        return Err(failed(format!(
            "a WebP side has at most {WEBP_SIDE} pixels"
        )));
    }
    let mut config = webp::WebPConfig::new().map_err(|()| failed("no configuration".to_owned()))?;
    config.quality = quality.into();
    config.method = WEBP_METHOD;
    let file = webp::Encoder::from_rgb(&picture.rgb, width, height)
        .encode_advanced(&config)
        .map_err(|error| failed(format!("{error:?}")))?
        .to_vec();
    Ok(match media::exif_block(picture.orientation) {
        None => file,
        Some(exif) => with_exif(&file, &exif, width, height),
    })
}

/// A simple WebP file as an extended one with an EXIF block (RFC 9649, section 2.7).
fn with_exif(file: &[u8], exif: &[u8], width: u32, height: u32) -> Vec<u8> {
    const HAS_EXIF: u8 = 0x08;
    const RIFF_HEADER: usize = 12;
    let mut chunks = b"WEBPVP8X\x0a\0\0\0".to_vec();
    chunks.extend([HAS_EXIF, 0, 0, 0]);
    chunks.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
    chunks.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
    chunks.extend_from_slice(&file[RIFF_HEADER..]);
    chunks.extend_from_slice(b"EXIF");
    chunks.extend_from_slice(&(exif.len() as u32).to_le_bytes());
    chunks.extend_from_slice(exif);
    if exif.len() % 2 == 1 {
        chunks.push(0);
    }
    let length = (chunks.len() as u32).to_le_bytes();
    [b"RIFF", &length[..], &chunks].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use sidecod_wire::media::Color;
    use sidecod_wire::slot::{Preset, Text};

    fn picture(orientation: u8) -> Picture {
        let rgb = (0..96_u32 * 64)
            .flat_map(|at| [(at % 96 * 2) as u8, (at / 96 * 3) as u8, (at * 7) as u8])
            .collect();
        Picture {
            width: 96,
            height: 64,
            color: Color::Rgb,
            orientation,
            rgb,
        }
    }

    #[test]
    fn names_go_both_ways() {
        for name in ["jpeg:1", "jpeg:75", "webp:100"] {
            assert_eq!(name.parse::<Classical>().unwrap().to_string(), name);
        }
        for name in ["jpeg", "jpeg:0", "webp:101", "avif:50", "jpeg:x"] {
            assert!(name.parse::<Classical>().is_err(), "{name}");
        }
    }

    #[test]
    fn files_keep_size_and_orientation() {
        for codec in [Classical::Jpeg(60), Classical::WebP(60)] {
            for orientation in [1, 6] {
                let file = codec.encode(&picture(orientation)).unwrap();
                let back = media::decode(&file, &Limits::default()).unwrap();
                let kept = (back.width, back.height, back.orientation);
                assert_eq!(kept, (96, 64, orientation), "{codec}");
            }
        }
    }

    #[test]
    fn photos_in_json_are_replaced_where_they_stand() {
        let file = media::encode(&picture(1), MediaType::Png).unwrap();
        let text = Text::Base64 {
            url_safe: false,
            padded: true,
            escaped: false,
        };
        let text = String::from_utf8(text.write(file)).unwrap();
        let body = format!(r#"{{ "model": "m", "input": {{"b64": "{text}"}}, "n" :1}}"#);
        let mut shape = Preset::Json.shape();
        shape.pointers.push("/input/b64".parse().unwrap());
        let limits = Limits::default();
        let looked = Looked::new(
            &HeaderMap::new(),
            Bytes::from(body.clone()),
            1 << 20,
            &shape,
            &limits,
        )
        .unwrap();
        assert_eq!(looked.pixels(), 96 * 64);
        let coded = Classical::Jpeg(50).code(&looked, &limits).unwrap();
        let changed = coded.crossing.bytes().clone();
        assert!(changed.len() < body.len());
        let again = Looked::new(&HeaderMap::new(), changed.clone(), 1 << 20, &shape, &limits);
        let again = again.unwrap();
        let media = again.found.inputs[0].form;
        assert!(matches!(
            media,
            Form::File {
                media: MediaType::Jpeg,
                ..
            }
        ));
        let changed = String::from_utf8(changed.to_vec()).unwrap();
        assert!(changed.starts_with(r#"{ "model": "m", "input": {"b64": "/9j/"#));
        assert!(changed.ends_with(r#""}, "n" :1}"#));
    }

    #[test]
    fn a_photo_that_is_the_body_says_its_new_type() {
        let file = media::encode(&picture(1), MediaType::Png).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "image/png".parse().unwrap());
        let limits = Limits::default();
        let shape = Preset::Auto.shape();
        let looked = Looked::new(&headers, file.into(), 1 << 20, &shape, &limits).unwrap();
        let coded = Classical::WebP(50).code(&looked, &limits).unwrap();
        let Crossing::Body { content_type, .. } = coded.crossing else {
            panic!("a body")
        };
        assert_eq!(content_type.as_deref(), Some("image/webp"));
    }
}
