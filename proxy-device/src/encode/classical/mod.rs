//! Photos written anew as JPEG, WebP or AVIF: smaller at their own size in pixels, and readable by
//! the model server without any decoder at the edge.

mod avif;
mod webp;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{self, MediaError, MediaType, Picture};
use sidecod_wire::slot::{self, Form};

use super::{Clock, Coded, Crossing, Looked, NotCoded, content_type, smaller};

/// A lossy image codec at a quality of 1 to 100, as libjpeg, libwebp and ravif count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Classical {
    /// Baseline JPEG, chroma at half the resolution.
    Jpeg(u8),
    /// WebP.
    WebP(u8),
    /// AVIF.
    Avif(u8),
}

impl Classical {
    fn media(self) -> MediaType {
        match self {
            Self::Jpeg(_) => MediaType::Jpeg,
            Self::WebP(_) => MediaType::WebP,
            Self::Avif(_) => MediaType::Avif,
        }
    }

    /// The codec of this name, `jpeg`, `webp` or `avif`, at qualities to come.
    fn named(codec: &str) -> Option<fn(u8) -> Self> {
        match codec {
            "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            "avif" => Some(Self::Avif),
            _ => None,
        }
    }

    /// Whether an option's name begins with that of a classical codec.
    #[must_use]
    pub fn is_meant(option: &str) -> bool {
        let codec = option.split(':').next();
        codec.and_then(Self::named).is_some()
    }

    /// Writes a picture as a file, with its orientation.
    ///
    /// # Errors
    /// [`MediaError::Encode`] where the codec cannot hold it.
    pub fn encode(self, picture: &Picture) -> Result<Vec<u8>, MediaError> {
        match self {
            Self::Jpeg(quality) => media::encode_jpeg(picture, quality),
            Self::WebP(quality) => checked(picture, MediaType::WebP, |p| webp::write(p, quality)),
            Self::Avif(quality) => checked(picture, MediaType::Avif, |p| avif::write(p, quality)),
        }
    }

    /// The request with all its photos written by this codec. A photo that would become larger
    /// stays as it is, and so does a sound.
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
            let same = &looked.body[input.range.clone()];
            let text = match input.form {
                Form::File { text, .. } => text,
                Form::Tensor(_) => {
                    return Err(failed(MediaError::Unsupported {
                        media: self.media().mime(),
                        what: "a tensor",
                    }));
                }
                Form::Sound(_) => {
                    parts.push(same.to_vec());
                    forms.push(input.form);
                    continue;
                }
            };
            let picture = looked.read(index, limits)?;
            steps[0].1 += clock.lap();
            let written = text.write(self.encode(&picture).map_err(failed)?);
            let (form, part) = if written.len() < same.len() {
                let media = self.media();
                (Form::File { media, text }, written)
            } else {
                (input.form, same.to_vec())
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
                content_type: content_type(looked, forms.iter().copied()),
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
            Self::Avif(quality) => write!(f, "avif:{quality}"),
        }
    }
}

impl FromStr for Classical {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (codec, quality) = text.split_once(':').unwrap_or((text, ""));
        let make =
            Self::named(codec).ok_or_else(|| format!("no classical codec is named {codec}"))?;
        match quality.parse() {
            Ok(quality @ 1..=100) => Ok(make(quality)),
            _ => Err(format!(
                "{codec} has qualities from 1 to 100, not {quality:?}"
            )),
        }
    }
}

/// What `write` makes of a picture that has pixels, and as many as it says.
fn checked(
    picture: &Picture,
    media: MediaType,
    write: impl FnOnce(&Picture) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, MediaError> {
    let &Picture { width, height, .. } = picture;
    let pixels = u64::from(width) * u64::from(height);
    let written = if pixels * 3 != picture.rgb.len() as u64 || pixels == 0 {
        Err(format!("{} bytes of pixels", picture.rgb.len()))
    } else {
        write(picture)
    };
    written.map_err(|reason| MediaError::Encode {
        media: media.mime(),
        width,
        height,
        reason,
    })
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
        for name in ["jpeg:1", "jpeg:75", "webp:100", "avif:60"] {
            assert_eq!(name.parse::<Classical>().unwrap().to_string(), name);
        }
        for name in ["jpeg", "jpeg:0", "webp:101", "avif:0", "heic:50", "jpeg:x"] {
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
