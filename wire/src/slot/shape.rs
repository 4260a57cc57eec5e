//! Shapes: where the inputs of a request stand, by the name of the protocol that it speaks.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tensor::{Element, Layout, Values};

/// What is looked for in the bodies of a route, beside photos as whole bodies and as parts of
/// `multipart/form-data`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shape {
    /// Places in JSON where a string may be a photo in base64, or an array the pixels of one.
    pub pointers: Vec<Pointer>,
    /// Whether the whole body may be a photo in base64.
    pub base64_body: bool,
    /// Whether it is an inference request of the Open Inference Protocol.
    pub inference: bool,
    /// What the numbers of tensors are; without it only tensors of bytes are pixels.
    pub tensors: Option<Tensors>,
}

/// What the numbers of a route's pixel tensors are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tensors {
    /// Order of the dimensions; none goes by which of them is 3 or 1.
    pub layout: Option<Layout>,
    /// How a number comes from a pixel.
    pub values: Values,
    /// Type and dimensions of a tensor that is a whole body without any description.
    pub body: Option<(Element, Vec<usize>)>,
}

/// A place in JSON: a JSON Pointer (RFC 6901) in which `*` is any one key or index and `**` any
/// number of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(pub(super) Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// This key, or this index.
    Name(String),
    /// Any one key or index.
    Any,
    /// Any number of them, none too.
    Deep,
}

/// A text is no place in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It does not begin with a slash.
    #[error("a pointer begins with /, as in /instances/*/image")]
    Start,
    /// A tilde that is not `~0` or `~1`.
    #[error("~ is written ~0 and / is written ~1 inside a name")]
    Escape,
    /// Too many `**`.
    #[error("more than two ** in one pointer")]
    Deep,
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let names = text.strip_prefix('/').ok_or(PointerError::Start)?;
        let mut segments = Vec::new();
        for name in names.split('/') {
            segments.push(match name {
                "*" => Segment::Any,
                "**" => Segment::Deep,
                name => {
                    let rest = name.replace("~0", "").replace("~1", "");
                    if rest.contains('~') {
                        return Err(PointerError::Escape);
                    }
                    Segment::Name(name.replace("~1", "/").replace("~0", "~"))
                }
            });
        }
        if segments.iter().filter(|s| **s == Segment::Deep).count() > 2 {
            return Err(PointerError::Deep);
        }
        Ok(Self(segments))
    }
}

/// The protocols that have a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// A photo as the whole body, or in the parts of a form: `TorchServe`, `DeepStack`,
    /// `CodeProject.AI`, Ultralytics, `LitServe`, `BentoML` and most others.
    #[default]
    #[serde(
        alias = "torchserve",
        alias = "deepstack",
        alias = "codeproject-ai",
        alias = "ultralytics",
        alias = "litserve"
    )]
    Auto,
    /// A photo in base64 as the whole body.
    Base64,
    /// TensorFlow Serving and the first protocol of `KServe`.
    #[serde(alias = "kserve-v1")]
    TfServing,
    /// Chat completions and responses, and what is compatible with them.
    Openai,
    /// Ollama's own protocol.
    Ollama,
    /// Roboflow's hosted inference and its inference server.
    Roboflow,
    /// Hugging Face inference endpoints.
    HuggingFace,
    /// The Open Inference Protocol: `KServe` v2, Triton, `MLServer`.
    #[serde(alias = "kserve-v2", alias = "triton", alias = "mlserver")]
    Oip,
    /// JSON with a route's own pointers.
    Json,
    /// A tensor as the whole body, as a route's own dimensions describe it.
    Tensor,
}

impl Preset {
    /// The shape of this protocol's requests.
    #[must_use]
    pub fn shape(self) -> Shape {
        let pointers: &[&str] = match self {
            Self::TfServing => &[
                "/instances/**/b64",
                "/inputs/**/b64",
                "/instances",
                "/instances/*",
                "/instances/*/*",
                "/inputs",
                "/inputs/*",
            ],
            Self::Openai => &[
                "/messages/*/content/*/image_url",
                "/messages/*/content/*/image_url/url",
                "/messages/*/content/*/source/data",
                "/messages/*/content/*/input_audio/data",
                "/input/*/content/*/image_url",
                "/input/*/content/*/input_audio/data",
            ],
            Self::Ollama => &["/images/*", "/messages/*/images/*"],
            Self::Roboflow => &[
                "/image",
                "/image/value",
                "/image/*/value",
                "/inputs/*/value",
                "/inputs/*/*/value",
            ],
            Self::HuggingFace => &["/inputs", "/inputs/*", "/image"],
            Self::Auto | Self::Base64 | Self::Oip | Self::Json | Self::Tensor => &[],
        };
        Shape {
            pointers: pointers
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            base64_body: matches!(self, Self::Base64 | Self::Roboflow | Self::HuggingFace),
            inference: self == Self::Oip,
            tensors: None,
        }
    }
}
