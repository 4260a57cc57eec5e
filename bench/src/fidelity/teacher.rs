//! The model whose answers are to be kept.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use sidecod_model_server::model;
use tract_onnx::prelude::*;

use super::parallel;

/// An ONNX classifier with one input of `[1, 3, side, side]`.
pub struct Teacher {
    plan: Arc<TypedRunnableModel>,
    side: u32,
    mean: f32,
    std: f32,
}

/// Logarithms of the probabilities of all classes.
pub struct Answer(Vec<f64>);

impl Teacher {
    /// Reads the model.
    ///
    /// # Errors
    /// If it cannot be read, or has another kind of input.
    pub fn load(path: &Path, mean: f32, std: f32) -> Result<Self> {
        let name = || path.display().to_string();
        let file = std::fs::read(path).with_context(|| format!("cannot read {}", name()))?;
        let shape = input_shape(&file).with_context(name)?;
        ensure!(
            shape.len() == 4 && shape[1] == 3 && shape[2] == shape[3],
            "{}: its input is {shape:?}, expected [1, 3, side, side]",
            name()
        );
        let plan = model::plan(&file, [1, 3, shape[2], shape[3]]).with_context(name)?;
        Ok(Self {
            plan,
            side: shape[2] as u32,
            mean,
            std,
        })
    }

    /// Side of the square that it takes, in pixels.
    pub fn side(&self) -> u32 {
        self.side
    }

    /// Its answers to some pictures, worked out on all cores.
    ///
    /// # Errors
    /// If the model fails.
    pub fn answers(&self, pictures: &[&RgbImage]) -> Result<Vec<Answer>> {
        parallel(pictures, |picture| self.answer(picture))
    }

    fn answer(&self, picture: &RgbImage) -> Result<Answer> {
        let side = self.side as usize;
        let mut planes = vec![0.0_f32; 3 * side * side];
        for (at, pixel) in picture.pixels().enumerate() {
            for channel in 0..3 {
                planes[channel * side * side + at] =
                    (f32::from(pixel[channel]) - self.mean) / self.std;
            }
        }
        let input = Tensor::from_shape(&[1, 3, side, side], &planes)?;
        let output = self.plan.run(tvec!(input.into()))?;
        let output = output.first().context("the teacher has no output")?;
        let logits: Vec<f64> = output
            .to_plain_array_view::<f32>()?
            .iter()
            .map(|logit| f64::from(*logit))
            .collect();
        Ok(Answer::new(&logits))
    }
}

fn input_shape(file: &[u8]) -> TractResult<Vec<usize>> {
    let model = onnx().model_for_read(&mut &file[..])?;
    let shape = model.input_fact(0)?.shape.as_concrete_finite()?;
    let shape = shape.context("its input has no fixed shape")?;
    Ok(shape.to_vec())
}

impl Answer {
    /// The answer that a model's outputs say.
    pub fn new(logits: &[f64]) -> Self {
        let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - greatest).exp()).sum();
        let log_sum = greatest + sum.ln();
        Self(logits.iter().map(|logit| logit - log_sum).collect())
    }

    /// The most probable class.
    pub fn best(&self) -> usize {
        let mut best = 0;
        for (class, log) in self.0.iter().enumerate() {
            if *log > self.0[best] {
                best = class;
            }
        }
        best
    }

    /// Whether a class is among the most probable `count`.
    pub fn is_in_top(&self, class: usize, count: usize) -> bool {
        self.0.iter().filter(|log| **log > self.0[class]).count() < count
    }

    /// Kullback-Leibler divergence from this answer to another, in nats.
    pub fn divergence(&self, other: &Self) -> f64 {
        let terms = self.0.iter().zip(&other.0);
        terms.map(|(p, q)| p.exp() * (p - q)).sum()
    }
}
