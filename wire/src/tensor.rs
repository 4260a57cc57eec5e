//! Pixels as tensors: the numbers that a client made of them, and the way back.
//!
//! A client turns the pixels of a photo, 0 to 255, into numbers by `(pixel * scale - mean) / std`,
//! with a mean and a standard deviation for each channel. [`Values`] says which, so that the codec
//! sees pixels and the model server gets numbers of exactly the same shape, type and range.

use half::f16;

use crate::limits::Limits;
use crate::media::{Color, MediaError, Picture};

/// How far from 0 to 255 a number may come out before it is no pixel: filters that resize photos
/// overshoot a little, a wrong normalisation by far.
const TOLERANCE: f32 = 4.0;

/// Type of a tensor's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// A byte.
    U8,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl Element {
    /// The type of this name in the Open Inference Protocol, if its tensors can be pixels.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "UINT8" => Some(Self::U8),
            "FP16" => Some(Self::F16),
            "FP32" => Some(Self::F32),
            _ => None,
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Order of a picture's three dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Channels, rows, columns.
    Chw,
    /// Rows, columns, channels.
    Hwc,
}

/// How the numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// Their bytes, little-endian.
    Binary,
    /// JSON numbers with commas between them.
    Flat,
    /// JSON arrays in arrays, one level for each dimension.
    Nested,
}

/// How a number comes from a pixel: `(pixel * scale - mean) / std`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values {
    /// Scale of the pixel.
    pub scale: f32,
    /// Mean of each channel.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
}

/// Pixels as they are.
impl Default for Values {
    fn default() -> Self {
        Self::NAMED[0].1
    }
}

impl Values {
    /// Those that have a name, and that a frame has a number for: never change their order.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("zero-to-255", Self::even(1.0, 0.0, 1.0)),
        ("zero-to-one", Self::even(1.0 / 255.0, 0.0, 1.0)),
        ("minus-one-to-one", Self::even(1.0 / 127.5, 1.0, 1.0)),
        (
            "imagenet",
            Self {
                scale: 1.0 / 255.0,
                mean: [0.485, 0.456, 0.406],
                std: [0.229, 0.224, 0.225],
            },
        ),
        ("lite", Self::even(1.0, 127.0, 128.0)),
    ];

    const fn even(scale: f32, mean: f32, std: f32) -> Self {
        Self {
            scale,
            mean: [mean; 3],
            std: [std; 3],
        }
    }

    /// The values of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::NAMED.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, values)| values)
    }

    /// Whether pixels can be told from the numbers again.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let parts = self.mean.iter().chain(&self.std).chain([&self.scale]);
        parts.clone().all(|value| value.is_finite())
            && self.scale != 0.0
            && self.std.iter().all(|value| *value != 0.0)
    }

    fn number(&self, pixel: u8, channel: usize) -> f32 {
        (f32::from(pixel) * self.scale - self.mean[channel]) / self.std[channel]
    }

    fn pixel(&self, number: f32, channel: usize) -> Option<u8> {
        let pixel = (number * self.std[channel] + self.mean[channel]) / self.scale;
        // What is not a number is in no range.
        (-TOLERANCE..=255.0 + TOLERANCE)
            .contains(&pixel)
            .then(|| pixel.round().clamp(0.0, 255.0) as u8)
    }
}

/// The pixels of one picture as numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Three channels or one.
    pub color: Color,
    /// Type of the numbers.
    pub element: Element,
    /// Order of the dimensions.
    pub layout: Layout,
    /// How the numbers are written.
    pub notation: Notation,
    /// How they come from pixels.
    pub values: Values,
}

impl Tensor {
    /// How many numbers it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.width as usize * self.height as usize * self.channels()
    }

    /// Whether it has no pixels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn channels(&self) -> usize {
        match self.color {
            Color::Rgb => 3,
            Color::Gray => 1,
        }
    }

    /// Length of each dimension.
    fn dimensions(&self) -> [usize; 3] {
        let (width, height) = (self.width as usize, self.height as usize);
        match self.layout {
            Layout::Chw => [self.channels(), height, width],
            Layout::Hwc => [height, width, self.channels()],
        }
    }

    /// The pixels behind the numbers in `bytes`.
    ///
    /// # Errors
    /// [`MediaError`] if the picture is over the limits, if there are not as many numbers as its
    /// dimensions say, or if one is far from what a pixel gives.
    pub fn read(&self, bytes: &[u8], limits: &Limits) -> Result<Picture, MediaError> {
        limits.check_picture(self.width, self.height)?;
        let damaged = |reason: String| MediaError::Damaged {
            media: "tensor",
            reason,
        };
        let expected = self.len();
        let numbers: Vec<f32> = match self.notation {
            Notation::Binary if bytes.len() == expected * self.element.bytes() => {
                match self.element {
                    Element::U8 => bytes.iter().map(|&byte| f32::from(byte)).collect(),
                    Element::F16 => bytes
                        .chunks_exact(2)
                        .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
                        .collect(),
                    Element::F32 => bytes
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                        .collect(),
                }
            }
            Notation::Binary => {
                return Err(damaged(format!(
                    "{} bytes for {expected} numbers",
                    bytes.len()
                )));
            }
            Notation::Flat | Notation::Nested => json_numbers(bytes, expected)
                .ok_or_else(|| damaged("no array of numbers".into()))?,
        };
        if numbers.len() != expected {
            return Err(damaged(format!(
                "{} numbers where its shape says {expected}",
                numbers.len()
            )));
        }
        let pixels = expected / self.channels();
        let mut rgb = Vec::with_capacity(pixels * 3);
        for pixel in 0..pixels {
            for channel in 0..3 {
                let channel = channel.min(self.channels() - 1);
                let index = match self.layout {
                    Layout::Chw => channel * pixels + pixel,
                    Layout::Hwc => pixel * self.channels() + channel,
                };
                let value = self.values.pixel(numbers[index], channel);
                rgb.push(value.ok_or_else(|| {
                    damaged(format!(
                        "{} is no pixel with these values: check scale, mean and std",
                        numbers[index]
                    ))
                })?);
            }
        }
        Ok(Picture {
            width: self.width,
            height: self.height,
            color: self.color,
            orientation: 1,
            rgb,
        })
    }

    /// The numbers of a picture of this size.
    #[must_use]
    pub fn write(&self, picture: &Picture) -> Vec<u8> {
        let pixels = picture.rgb.len() / 3;
        let channels = self.channels();
        let grey = |pixel: usize| {
            let sum: u32 = picture.rgb[pixel * 3..][..3]
                .iter()
                .map(|&v| u32::from(v))
                .sum();
            ((sum + 1) / 3) as u8
        };
        let number = |index: usize| {
            let (pixel, channel) = match self.layout {
                Layout::Chw => (index % pixels, index / pixels),
                Layout::Hwc => (index / channels, index % channels),
            };
            let value = match self.color {
                Color::Rgb => picture.rgb[pixel * 3 + channel],
                Color::Gray => grey(pixel),
            };
            self.values.number(value, channel)
        };
        let numbers = (0..pixels * channels).map(number);
        match self.notation {
            Notation::Binary => self.binary(numbers),
            Notation::Flat | Notation::Nested => self.json(numbers),
        }
    }

    fn binary(&self, numbers: impl ExactSizeIterator<Item = f32>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(numbers.len() * self.element.bytes());
        for number in numbers {
            match self.element {
                Element::U8 => bytes.push(number.round().clamp(0.0, 255.0) as u8),
                Element::F16 => bytes.extend(f16::from_f32(number).to_le_bytes()),
                Element::F32 => bytes.extend(number.to_le_bytes()),
            }
        }
        bytes
    }

    fn json(&self, numbers: impl ExactSizeIterator<Item = f32>) -> Vec<u8> {
        use std::io::Write as _;
        let mut text = Vec::with_capacity(numbers.len() * 12);
        let [_, rows, columns] = self.dimensions();
        let nested = self.notation == Notation::Nested;
        let count = numbers.len();
        if nested {
            text.push(b'[');
        }
        for (index, number) in numbers.enumerate() {
            if index > 0 {
                text.push(b',');
            }
            if nested && index.is_multiple_of(rows * columns) {
                text.push(b'[');
            }
            if nested && index.is_multiple_of(columns) {
                text.push(b'[');
            }
            // Writing to a vector does not fail.
            let _ = match self.element {
                Element::U8 => write!(text, "{}", number.round().clamp(0.0, 255.0) as u8),
                Element::F16 => write!(text, "{:?}", f16::from_f32(number).to_f32()),
                Element::F32 => write!(text, "{number:?}"),
            };
            if nested && (index + 1).is_multiple_of(columns) {
                text.push(b']');
            }
            if nested && (index + 1).is_multiple_of(rows * columns) {
                text.push(b']');
            }
        }
        if nested && count > 0 {
            text.push(b']');
        }
        text
    }
}

/// Pictures in a tensor of more dimensions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pictures {
    /// How many there are, one behind the other.
    pub count: usize,
    /// What each of them is, written in binary as single-precision numbers.
    pub tensor: Tensor,
}

/// The pictures in a tensor of these dimensions: the last three are a picture's, with 3 or 1
/// channels, in a size that the limits allow. `layout` decides where both orders would do.
#[must_use]
pub fn pictures(dimensions: &[usize], layout: Option<Layout>, limits: &Limits) -> Option<Pictures> {
    let (batch, picture) = dimensions.split_at_checked(dimensions.len().checked_sub(3)?)?;
    let &[a, b, c] = picture else { return None };
    let color = |channels| match channels {
        3 => Some(Color::Rgb),
        1 => Some(Color::Gray),
        _ => None,
    };
    let (layout, color) = match layout {
        Some(Layout::Chw) => (Layout::Chw, color(a)?),
        Some(Layout::Hwc) => (Layout::Hwc, color(c)?),
        None => match (color(a), color(c)) {
            (_, Some(color)) => (Layout::Hwc, color),
            (Some(color), None) => (Layout::Chw, color),
            (None, None) => return None,
        },
    };
    let (height, width) = match layout {
        Layout::Chw => (b, c),
        Layout::Hwc => (a, b),
    };
    let (height, width) = (u32::try_from(height).ok()?, u32::try_from(width).ok()?);
    if height == 0 || width == 0 {
        return None;
    }
    limits.check_picture(width, height).ok()?;
    let count = batch
        .iter()
        .try_fold(1_usize, |count, &length| count.checked_mul(length))?;
    Some(Pictures {
        count,
        tensor: Tensor {
            width,
            height,
            color,
            element: Element::F32,
            layout,
            notation: Notation::Binary,
            values: Values::default(),
        },
    })
}

/// The dimensions of arrays in arrays of numbers, told by the first of each level; none if the text
/// does not begin like one. That all of them have the same length is seen when they are read.
#[must_use]
pub fn nested_dimensions(text: &[u8]) -> Option<Vec<usize>> {
    /// Batches of videos have five.
    const MOST: usize = 8;
    let depth = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .take_while(|&&byte| byte == b'[')
        .count();
    if !(3..=MOST).contains(&depth) {
        return None;
    }
    // Commas at each level of the first element of the level above, that is, until it closes.
    let mut dimensions = vec![1; depth];
    let mut open = vec![true; depth];
    let mut level = 0;
    for &byte in text {
        match byte {
            b'[' if level == depth => return None,
            b'[' => level += 1,
            b']' if level == 0 => return None,
            b']' => {
                open[level - 1] = false;
                level -= 1;
                if level == 0 {
                    break;
                }
            }
            b',' if level > 0 && open[level - 1] => dimensions[level - 1] += 1,
            b'"' | b'{' => return None,
            _ => {}
        }
    }
    Some(dimensions)
}

/// The numbers in JSON arrays, whatever their nesting; none if there is anything else, or more than
/// `most` of them.
fn json_numbers(text: &[u8], most: usize) -> Option<Vec<f32>> {
    let mut numbers = Vec::with_capacity(most.min(text.len()));
    let text = std::str::from_utf8(text).ok()?;
    let words = text.split(|c: char| matches!(c, ',' | '[' | ']') || c.is_ascii_whitespace());
    for word in words.filter(|word| !word.is_empty()) {
        if numbers.len() == most {
            return None;
        }
        numbers.push(word.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(element: Element, layout: Layout, notation: Notation, values: Values) -> Tensor {
        Tensor {
            width: 16,
            height: 16,
            color: Color::Rgb,
            element,
            layout,
            notation,
            values,
        }
    }

    /// Every pixel value in every channel.
    fn picture() -> Picture {
        Picture {
            width: 16,
            height: 16,
            color: Color::Rgb,
            orientation: 1,
            rgb: (0..=255_u8).flat_map(|v| [v, 255 - v, v ^ 0x55]).collect(),
        }
    }

    #[test]
    fn pixels_come_back_exactly_from_every_form() {
        for (_, values) in Values::NAMED {
            for element in [Element::U8, Element::F16, Element::F32] {
                // Bytes hold nothing but pixels as they are.
                let values = if element == Element::U8 {
                    Values::default()
                } else {
                    values
                };
                for layout in [Layout::Chw, Layout::Hwc] {
                    for notation in [Notation::Binary, Notation::Flat, Notation::Nested] {
                        let tensor = tensor(element, layout, notation, values);
                        let written = tensor.write(&picture());
                        let read = tensor.read(&written, &Limits::default()).unwrap();
                        assert_eq!(read, picture(), "{tensor:?}");
                        assert_eq!(tensor.write(&read), written);
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_no_pixels_are_refused() {
        let values = Values::named("zero-to-one").unwrap();
        let tensor = tensor(Element::F32, Layout::Chw, Notation::Binary, values);
        for wrong in [f32::NAN, f32::INFINITY, -1.0, 2.0, 255.0] {
            let mut bytes = tensor.write(&picture());
            bytes[400..404].copy_from_slice(&wrong.to_le_bytes());
            let error = tensor.read(&bytes, &Limits::default()).unwrap_err();
            assert!(
                error.to_string().contains("check scale, mean and std"),
                "{error}"
            );
        }
        let bytes = tensor.write(&picture());
        assert!(tensor.read(&bytes[1..], &Limits::default()).is_err());
        for text in ["[1,2", "[true]", "[]", "[\"1\"]", "{}"] {
            let flat = Tensor {
                notation: Notation::Flat,
                ..tensor
            };
            assert!(
                flat.read(text.as_bytes(), &Limits::default()).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn which_dimensions_are_a_picture() {
        let limits = Limits::default();
        let size = |dims: &[usize], layout| {
            pictures(dims, layout, &limits)
                .map(|p| (p.count, p.tensor.width, p.tensor.height, p.tensor.layout))
        };
        assert_eq!(size(&[3, 4, 5], None), Some((1, 5, 4, Layout::Chw)));
        assert_eq!(size(&[4, 5, 3], None), Some((1, 5, 4, Layout::Hwc)));
        assert_eq!(size(&[2, 8, 4, 5, 1], None), Some((16, 5, 4, Layout::Hwc)));
        assert_eq!(
            size(&[3, 4, 3], Some(Layout::Chw)),
            Some((1, 3, 4, Layout::Chw))
        );
        assert_eq!(size(&[0, 3, 4, 4], None), Some((0, 4, 4, Layout::Chw)));
        for dims in [
            &[][..],
            &[3],
            &[4, 5],
            &[4, 5, 2],
            &[3, 0, 4],
            &[3, 1 << 40, 4],
            &[3, 20_000, 20_000],
        ] {
            assert_eq!(size(dims, None), None, "{dims:?}");
        }
        assert_eq!(size(&[usize::MAX, 2, 3, 4, 4], None), None);
    }

    #[test]
    fn dimensions_of_nested_arrays() {
        for (text, dims) in [
            ("[[[1,2,3],[4,5,6]]]", Some(vec![1, 2, 3])),
            (" [ [[[1]],[[2]]] ]", Some(vec![1, 2, 1, 1])),
            ("[1,2,3]", None),
            ("[[1],[2]]", None),
            ("[[[\"a\"]]]", None),
            ("[[[{}]]]", None),
            ("[[[[[[[[[1]]]]]]]]]", None),
            ("[[[1],[[2]]]]", None),
        ] {
            assert_eq!(nested_dimensions(text.as_bytes()), dims, "{text}");
        }
    }
}
