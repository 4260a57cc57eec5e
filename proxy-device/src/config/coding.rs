//! The keys of a route that say where its inputs stand and how they are coded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sidecod_wire::media::MediaType;
use sidecod_wire::slot::{Pointer, Preset, Tensors};
use sidecod_wire::sound::SoundCodec;
use sidecod_wire::tensor::{Element, Layout, Values};

use super::Route;
use crate::encode::Coding;

/// What the numbers of pixel tensors are: `(pixel * scale - mean) / std`, pixels from 0 to 255.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// `nchw` or `nhwc`, with or without the first dimension; told by the shape where it is not
    /// named.
    #[serde(default)]
    pub layout: Option<LayoutName>,
    /// `zero-to-255`, `zero-to-one`, `minus-one-to-one`, `imagenet` or `lite`, instead of
    /// `scale`, `mean` and `std`.
    #[serde(default)]
    pub values: Option<String>,
    /// Scale of the pixel.
    #[serde(default)]
    pub scale: Option<f32>,
    /// Mean of each channel, after the scale.
    #[serde(default)]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation of each channel, after the scale.
    #[serde(default)]
    pub std: Option<[f32; 3]>,
    /// `FP32`, `FP16` or `UINT8`, of a tensor that is the whole body.
    #[serde(default)]
    pub datatype: Option<String>,
    /// Dimensions of a tensor that is the whole body.
    #[serde(default)]
    pub shape: Option<Vec<usize>>,
}

/// Order of a tensor's dimensions.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LayoutName {
    /// Channels, rows, columns.
    Nchw,
    /// Rows, columns, channels.
    Nhwc,
}

/// Media type in which the model server gets photos.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Render {
    /// That of the app's photo.
    #[default]
    Same,
    /// PNG, without loss.
    Png,
    /// BMP, the fastest to write and to read.
    Bmp,
}

/// The key that is wrong, and why.
type Fault = (&'static str, String);

impl Route {
    /// How this route's inputs are found and coded.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn coding(&self) -> Result<Coding, Fault> {
        let mut shape = self.shape.shape();
        for text in &self.pointers {
            let pointer: Result<Pointer, _> = text.parse();
            let pointer = pointer.map_err(|error| ("pointers", format!("{text}: {error}")))?;
            shape.pointers.push(pointer);
        }
        if self.shape == Preset::Json && shape.pointers.is_empty() {
            return Err(("pointers", "shape = \"json\" needs at least one".into()));
        }
        if let Some(tensor) = &self.tensor {
            shape.tensors = Some(tensor.check()?);
        }
        let of_body = shape
            .tensors
            .as_ref()
            .and_then(|tensors| tensors.body.as_ref());
        if self.shape == Preset::Tensor && of_body.is_none() {
            let fault = "shape = \"tensor\" needs datatype and shape, the body does not tell them";
            return Err(("tensor", fault.into()));
        }
        let sound = match &self.sound {
            Some(codec) => codec.parse().map_err(|fault| ("sound", fault))?,
            None => SoundCodec::default(),
        };
        Ok(Coding {
            shape,
            sound,
            max_side: self.max_side,
            written_as: match self.render {
                Render::Same => None,
                Render::Png => Some(MediaType::Png),
                Render::Bmp => Some(MediaType::Bmp),
            },
        })
    }
}

impl Tensor {
    fn check(&self) -> Result<Tensors, Fault> {
        let own = self.scale.is_some() || self.mean.is_some() || self.std.is_some();
        let values = match &self.values {
            Some(_) if own => {
                let fault = "name them, or give scale, mean and std, not both";
                return Err(("tensor.values", fault.into()));
            }
            Some(name) => Values::named(name).ok_or_else(|| {
                let known: Vec<_> = Values::NAMED.iter().map(|(name, _)| *name).collect();
                (
                    "tensor.values",
                    format!("{name} is none of {}", known.join(", ")),
                )
            })?,
            None if own => Values {
                scale: self.scale.unwrap_or(1.0),
                mean: self.mean.unwrap_or([0.0; 3]),
                std: self.std.unwrap_or([1.0; 3]),
            },
            None => {
                let fault = "say how numbers come from pixels: values, or scale, mean and std";
                return Err(("tensor", fault.into()));
            }
        };
        if !values.is_valid() {
            return Err(("tensor", "scale and std must not be 0 or infinite".into()));
        }
        let body = match (&self.datatype, &self.shape) {
            (Some(name), Some(shape)) => {
                let element = Element::named(name);
                let fault = || {
                    (
                        "tensor.datatype",
                        format!("{name} is none of FP32, FP16, UINT8"),
                    )
                };
                Some((element.ok_or_else(fault)?, shape.clone()))
            }
            (None, None) => None,
            _ => return Err(("tensor", "datatype and shape go together".into())),
        };
        Ok(Tensors {
            layout: self.layout.map(|layout| match layout {
                LayoutName::Nchw => Layout::Chw,
                LayoutName::Nhwc => Layout::Hwc,
            }),
            values,
            body,
        })
    }
}
