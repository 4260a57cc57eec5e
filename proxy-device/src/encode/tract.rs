//! The tract engine: the only module that names it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::knobs::KnobScope;
use tract_onnx::tract_core::ops::konst::Const;

use super::{Encoder, EncoderError};

/// Shapes whose plans are kept. A camera has one or two; a picture in strips needs two.
const PLANS: usize = 8;

/// Rows of 128 points and more would get convolutions without matrix products, which take up to five
/// times as long for nets as wide as these.
const MATRIX_PRODUCTS: [(&str, &str); 1] = [("TRACT_DISABLE_DIRECT_SPATIAL", "true")];

type Plan = Arc<TypedRunnableModel>;

/// A net that tract runs. Plans are made for one shape each, the latest used are kept.
pub struct Tract {
    model: InferenceModel,
    /// Its file, for errors.
    file: &'static str,
    /// Channels of what it takes.
    channels: usize,
    plans: Mutex<VecDeque<((usize, usize), Plan)>>,
}

impl Tract {
    /// Reads a net whose input has so many planes from the bytes of its ONNX file. Weights may be of
    /// half precision.
    ///
    /// # Errors
    /// [`EncoderError`] if tract cannot read it.
    pub fn load(onnx: &[u8], file: &'static str, channels: usize) -> Result<Self, EncoderError> {
        let model = tract_onnx::onnx()
            .model_for_read(&mut &onnx[..])
            .map_err(|error| failed(file, &error))?;
        Ok(Self {
            model,
            file,
            channels,
            plans: Mutex::default(),
        })
    }

    fn plan(&self, height: usize, width: usize) -> TractResult<Plan> {
        let shape = (height, width);
        let lock = || self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plans = lock();
        if let Some(at) = plans.iter().position(|(known, _)| *known == shape)
            && let Some((shape, plan)) = plans.remove(at)
        {
            plans.push_front((shape, plan.clone()));
            return Ok(plan);
        }
        drop(plans);
        let fact = f32::fact([1, self.channels, height, width]);
        let mut net = self
            .model
            .clone()
            .with_input_fact(0, fact.into())?
            .into_typed()?;
        widen(&mut net)?;
        let plan =
            KnobScope::new(MATRIX_PRODUCTS)?.enter(|| net.into_optimized()?.into_runnable())?;
        let mut plans = lock();
        plans.truncate(PLANS - 1);
        plans.push_front((shape, plan.clone()));
        Ok(plan)
    }
}

impl Encoder for Tract {
    fn run(&self, planes: Vec<f32>, height: usize, width: usize) -> Result<Vec<f32>, EncoderError> {
        let run = || -> TractResult<Vec<f32>> {
            let input = Tensor::from_shape(&[1, self.channels, height, width], &planes)?;
            drop(planes);
            let output = self.plan(height, width)?.run(tvec!(input.into()))?;
            let latent = output.first().ok_or_else(|| TractError::msg("no output"))?;
            Ok(latent.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        };
        run().map_err(|error| failed(self.file, &error))
    }
}

/// Makes weights of half precision single: tract does not fold a cast that makes a constant larger,
/// it would run again for every input.
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

fn failed(file: &'static str, error: &TractError) -> EncoderError {
    EncoderError {
        file,
        reason: format!("{error:#}"),
    }
}
