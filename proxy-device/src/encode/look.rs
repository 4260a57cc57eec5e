//! A first look at a request: where its inputs stand and how large they are, before any pixel is
//! decoded.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use sidecod_wire::header::JSON_LENGTH;
use sidecod_wire::limits::Limits;
use sidecod_wire::media::Picture;
use sidecod_wire::slot::{self, Found, Request, Shape, Text, grpc};
use sidecod_wire::sound::{Sound, SoundCodec, SoundError};

use super::{ContentCodings, NotCoded};
use crate::route;

/// A body with at least one input.
#[derive(Debug, Clone)]
pub struct Looked {
    /// The body, without any content coding.
    pub body: Bytes,
    /// Bytes of the body as the app sent it.
    pub sent: usize,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// Whether it is a call of gRPC, whose answer is one as well.
    pub is_grpc: bool,
    /// Where its inputs stand.
    pub found: Found,
    /// Their width and height, as far as their headers tell; none of sounds.
    pub sizes: Vec<(u32, u32)>,
}

impl Looked {
    /// Looks at a body whose length without content codings is bounded by `limit`.
    ///
    /// # Errors
    /// [`NotCoded`] if there is no input in it, or it cannot be told.
    pub fn new(
        headers: &HeaderMap,
        body: Bytes,
        limit: usize,
        shape: &Shape,
        limits: &Limits,
    ) -> Result<Self, NotCoded> {
        let sent = body.len();
        let content_type = route::content_type(headers);
        let is_grpc = content_type.is_some_and(grpc::is);
        let plain = if is_grpc {
            message(headers, &body, limit)?
        } else {
            let codings = content_codings(headers).unwrap_or_default();
            match codings.decode(&body, limit)? {
                Cow::Owned(plain) => Some(plain),
                Cow::Borrowed(_) => None,
            }
        };
        let body = plain.map_or(body, Bytes::from);
        let request = Request {
            body: &body,
            content_type,
            json_length: json_length(headers),
        };
        let found = slot::find(&request, shape, limits)?;
        if found.inputs.is_empty() {
            let sound = found.sounds.first();
            return Err(sound.map_or(NotCoded::NoInput, |sound| {
                NotCoded::Sound(sound.media.mime())
            }));
        }
        let sizes = found.inputs.iter().map(|input| {
            let size = input.form.size(&body[input.range.clone()]);
            size.unwrap_or_default()
        });
        Ok(Self {
            sizes: sizes.collect(),
            sent,
            is_grpc,
            content_type: content_type.map(ToOwned::to_owned),
            found,
            body,
        })
    }

    /// Pixels of all inputs.
    #[must_use]
    pub fn pixels(&self) -> u64 {
        let pixels = |&(width, height): &(u32, u32)| u64::from(width) * u64::from(height);
        self.sizes.iter().map(pixels).sum()
    }

    /// The pixels of the input of this index.
    ///
    /// # Errors
    /// [`NotCoded::Media`].
    pub fn read(&self, index: usize, limits: &Limits) -> Result<Picture, NotCoded> {
        let input = &self.found.inputs[index];
        let picture = input.form.read(&self.body[input.range.clone()], limits);
        picture.map_err(|source| NotCoded::Media {
            slot: index,
            source,
        })
    }

    /// The sound of this index with its samples coded; `text` says how its file stands in the body.
    ///
    /// # Errors
    /// [`NotCoded::Samples`].
    pub fn sound(
        &self,
        index: usize,
        text: Text,
        codec: SoundCodec,
        limits: &Limits,
    ) -> Result<Sound, NotCoded> {
        let file = text.read(&self.body[self.found.inputs[index].range.clone()]);
        let sound = file.ok_or(SoundError::Unsupported);
        let sound = sound.and_then(|file| Sound::of(&file, codec, limits));
        sound.map_err(|source| NotCoded::Samples {
            slot: index,
            source,
        })
    }
}

/// The content codings of a body; none where one is not known here.
#[must_use]
pub fn content_codings(headers: &HeaderMap) -> Option<ContentCodings> {
    let values = headers.get_all(header::CONTENT_ENCODING);
    let values: Result<Vec<_>, _> = values.iter().map(HeaderValue::to_str).collect();
    ContentCodings::parse(&values.ok()?.join(","))
}

/// The body of a call of gRPC with its message as it is without compression; none if that is not
/// compressed.
fn message(headers: &HeaderMap, body: &[u8], limit: usize) -> Result<Option<Vec<u8>>, NotCoded> {
    let encoding = headers.get("grpc-encoding").map(HeaderValue::to_str);
    let Some(Ok(encoding)) = encoding else {
        return Ok(None);
    };
    // One that is not known here stays on, and slots are looked for in vain.
    let Some(codings) = ContentCodings::parse(encoding) else {
        return Ok(None);
    };
    let plain = grpc::uncompressed(body, |message| {
        codings.decode(message, limit).map(Cow::into_owned)
    });
    Ok(plain?)
}

/// The length of the JSON that the Open Inference Protocol puts before binary data.
fn json_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(JSON_LENGTH)?.to_str().ok()?.trim().parse().ok()
}
