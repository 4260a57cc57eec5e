//! EfficientNet-Lite0, run by tract. The weights and the class names are part of the program.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::Serialize;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::konst::Const;

use crate::picture::{Input, SIDE};

/// Name of the model, as in its path under `/predictions/`.
pub const NAME: &str = "efficientnet-lite0";
/// Classes in an answer.
const TOP: usize = 5;

static WEIGHTS: &[u8] = include_bytes!("../model/efficientnet-lite0.onnx");
static LABELS: &str = include_str!("../model/labels.txt");

/// The model could not be read or run.
#[derive(Debug, thiserror::Error)]
#[error("model {NAME}: {0:#}")]
pub struct ModelError(#[from] TractError);

/// One class of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// English name of the class.
    #[serde(rename = "class")]
    pub name: &'static str,
    /// Index of the class in ImageNet-1k, 0 to 999.
    pub index: usize,
    /// Probability, 0 to 1. All thousand classes sum to 1.
    pub probability: f32,
}

/// The classifier, ready to run. One run takes one thread; several may run at a time.
pub struct Model {
    plan: Arc<TypedRunnableModel>,
    labels: Vec<&'static str>,
}

impl Model {
    /// Reads and optimises the model: about a second.
    pub fn load() -> Result<Self, ModelError> {
        Ok(Self {
            plan: plan(WEIGHTS, [1, 3, SIDE, SIDE])?,
            labels: LABELS.lines().collect(),
        })
    }

    /// The most probable classes, best first.
    pub fn classify(&self, input: &Input) -> Result<Vec<Prediction>, ModelError> {
        let pixels = Tensor::from_shape(&[1, 3, SIDE, SIDE], input.values())?;
        let output = self.plan.run(tvec!(pixels.into()))?;
        let output = output.first().ok_or_else(|| TractError::msg("no output"))?;
        let logits: Vec<f32> = output
            .to_plain_array_view::<f32>()?
            .iter()
            .copied()
            .collect();
        Ok(self.top(&softmax(&logits)))
    }

    fn top(&self, probabilities: &[f32]) -> Vec<Prediction> {
        let mut predictions: Vec<Prediction> = self
            .labels
            .iter()
            .zip(probabilities)
            .enumerate()
            .map(|(index, (name, &probability))| Prediction {
                name,
                index,
                probability,
            })
            .collect();
        predictions.sort_by(|a, b| {
            b.probability
                .partial_cmp(&a.probability)
                .unwrap_or(Ordering::Equal)
        });
        predictions.truncate(TOP);
        predictions
    }
}

/// An ONNX file ready to run on one tensor of this shape; weights may be of half precision.
pub fn plan(onnx_file: &[u8], shape: [usize; 4]) -> Result<Arc<TypedRunnableModel>, ModelError> {
    let mut net = onnx()
        .model_for_read(&mut &onnx_file[..])?
        .with_input_fact(0, f32::fact(shape).into())?
        .into_typed()?;
    widen(&mut net)?;
    Ok(net.into_optimized()?.into_runnable()?)
}

/// Makes the weights, half precision in the file, single precision.
///
/// tract does not fold a cast that makes a large constant larger: it would run again for every
/// photo, and the weights behind it could not be packed beforehand.
fn widen(net: &mut TypedModel) -> TractResult<()> {
    for node in &mut net.nodes {
        let Some(weights) = node.op_as::<Const>() else {
            continue;
        };
        if weights.val().datum_type() == f16::datum_type() {
            let wide = weights.val().cast_to::<f32>()?.into_owned();
            let wide = wide.into_arc_tensor();
            node.outputs[0].fact = TypedFact::try_from(&wide)?;
            node.op = Box::new(Const::new(wide)?);
        }
    }
    Ok(())
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|l| (l - greatest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Limits;

    const PHOTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../photos");

    #[test]
    fn photos_get_the_class_that_they_show() {
        let model = Model::load().unwrap();
        for (file, index, name, least) in [
            ("polar-bear.jpg", 296, "polar bear", 0.9),
            ("komodo-dragon.jpg", 48, "Komodo dragon", 0.6),
            ("komodo-dragon-1080p.jpg", 48, "Komodo dragon", 0.5),
            ("scarlet-macaw.jpg", 88, "macaw", 0.5),
            ("goldfish.jpg", 1, "goldfish", 0.8),
            ("dam.jpg", 525, "dam", 0.9),
        ] {
            let bytes = std::fs::read(format!("{PHOTOS}/{file}")).unwrap();
            let input = Input::read(&bytes, Limits::default()).unwrap();
            let predictions = model.classify(&input).unwrap();
            let best = &predictions[0];
            assert_eq!(predictions.len(), TOP);
            assert_eq!(best.index, index, "{file}: {predictions:?}");
            assert_eq!(best.name.to_lowercase(), name.to_lowercase(), "{file}");
            assert!(best.probability > least, "{file}: {}", best.probability);
            assert!(predictions.is_sorted_by(|a, b| a.probability >= b.probability));
        }
    }

    #[test]
    fn no_weight_is_cast_when_a_photo_comes() {
        let model = Model::load().unwrap();
        let nodes = model.plan.model().nodes();
        assert!(nodes.iter().all(|node| !node.op.name().contains("Cast")));
    }

    #[test]
    fn every_class_has_a_name() {
        let names: Vec<_> = LABELS.lines().collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| !name.trim().is_empty()));
    }

    #[test]
    fn softmax_holds_for_large_logits() {
        let values = softmax(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(values, [0.5, 0.5, 0.0]);
    }
}
