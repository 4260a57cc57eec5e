//! The tract engine: the only module that names it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::knobs::KnobScope;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PoolSpec};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::nn::DataFormat;
use tract_onnx::tract_core::ops::source::TypedSource;

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
    /// Pixels on a side of the patches that it takes.
    patch: usize,
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
            patch: 1,
            plans: Mutex::default(),
        })
    }

    /// The same in patches, if that is how the net begins; `stride` is what its sides are multiples of.
    ///
    /// # Errors
    /// [`EncoderError`] if the net does not take such sides.
    pub fn in_patches(mut self, stride: usize) -> Result<Self, EncoderError> {
        let side = 8 * stride;
        let patch = self
            .typed(side, side)
            .and_then(|mut net| take_patches(&mut net))
            .map_err(|error| failed(self.file, &error))?;
        if stride.is_multiple_of(patch) {
            self.patch = patch;
        }
        Ok(self)
    }

    /// The net for inputs of this size.
    fn typed(&self, height: usize, width: usize) -> TractResult<TypedModel> {
        let fact = f32::fact([1, self.channels, height, width]);
        let model = self.model.clone();
        let mut net = model.with_input_fact(0, fact.into())?.into_typed()?;
        widen(&mut net)?;
        net.into_decluttered()
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
        let mut net = self.typed(height, width)?;
        if self.patch > 1 {
            take_patches(&mut net)?;
        }
        let plan =
            KnobScope::new(MATRIX_PRODUCTS)?.enter(|| net.into_optimized()?.into_runnable())?;
        let mut plans = lock();
        plans.truncate(PLANS - 1);
        plans.push_front((shape, plan.clone()));
        Ok(plan)
    }
}

impl Encoder for Tract {
    fn run(
        &self,
        height: usize,
        width: usize,
        fill: &dyn Fn(&mut [f32]),
    ) -> Result<Vec<f32>, EncoderError> {
        let run = || -> TractResult<Vec<f32>> {
            let channels = self.channels * self.patch * self.patch;
            let shape = [1, channels, height / self.patch, width / self.patch];
            let mut input = Tensor::zero::<f32>(&shape)?;
            fill(input.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
            let output = self.plan(height, width)?.run(tvec!(input.into()))?;
            let latent = output.first().ok_or_else(|| TractError::msg("no output"))?;
            Ok(latent.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        };
        run().map_err(|error| failed(self.file, &error))
    }

    fn patch(&self) -> usize {
        self.patch
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

/// Where the net begins with a convolution over patches that do not overlap, makes it a convolution of
/// single places, each with all numbers of a patch: a product of matrices, for which no patch is copied
/// out. Says how many pixels a patch has on a side, else 1.
fn take_patches(net: &mut TypedModel) -> TractResult<usize> {
    let source = net.input_outlets()?[0];
    let &[user] = net.outlet_successors(source) else {
        return Ok(1);
    };
    let Some(conv) = net.node(user.node).op_as::<Conv>() else {
        return Ok(1);
    };
    let PoolSpec {
        data_format: DataFormat::NCHW,
        kernel_shape,
        input_channels,
        ..
    } = &conv.pool_spec
    else {
        return Ok(1);
    };
    let &[patch, width] = &kernel_shape[..] else {
        return Ok(1);
    };
    let mut shape = net.outlet_fact(source)?.shape.to_tvec();
    let (zero, padding) = (0.to_dim(), conv.pool_spec.computed_padding(&shape[2..]));
    let kernel = net.node(user.node).inputs[1];
    let weights = net.node(kernel.node).op_as::<Const>();
    let (Some(weights), true) = (
        weights.filter(|_| net.outlet_successors(kernel).len() == 1),
        patch == width
            && conv.pool_spec.strides()[..] == kernel_shape[..]
            && conv.pool_spec.dilations().iter().all(|&step| step == 1)
            && padding
                .iter()
                .all(|pad| pad.pad_before == zero && pad.pad_after == zero)
            && conv.group == 1
            && conv.q_params.is_none()
            && conv.kernel_fmt == KernelFormat::OIHW,
    ) else {
        return Ok(1);
    };
    let planes = input_channels * patch * patch;
    let mut single = conv.clone();
    single.pool_spec = PoolSpec {
        kernel_shape: tvec![1, 1],
        strides: None,
        input_channels: planes,
        ..conv.pool_spec.clone()
    };
    let mut weights = weights.val().clone().into_tensor();
    weights.set_shape(&[conv.output_channels(), planes, 1, 1])?;
    let weights = weights.into_arc_tensor();
    shape[1] = planes.to_dim();
    for side in &mut shape[2..] {
        *side = side.clone() / patch;
    }
    let taken = f32::fact(&shape);
    let node = net.node_mut(kernel.node);
    node.outputs[0].fact = TypedFact::try_from(&weights)?;
    node.op = Box::new(Const::new(weights)?);
    let node = net.node_mut(source.node);
    node.outputs[0].fact = taken.clone();
    node.op = Box::new(TypedSource::new(taken));
    net.node_mut(user.node).op = Box::new(single);
    Ok(patch)
}

fn failed(file: &'static str, error: &TractError) -> EncoderError {
    EncoderError {
        file,
        reason: format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_gives_the_same_in_patches() {
        let onnx = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../onnx/codecs/photo/encoder.onnx"
        );
        let onnx = std::fs::read(onnx).unwrap();
        let plain = Tract::load(&onnx, "encoder.onnx", 3).unwrap();
        let in_patches = Tract::load(&onnx, "encoder.onnx", 3).unwrap();
        let in_patches = in_patches.in_patches(8).unwrap();
        assert_eq!((plain.patch(), in_patches.patch()), (1, 8));
        let (height, width) = (24, 40);
        let pixel = |channel: usize, y: usize, x: usize| {
            ((channel * 31 + y * 17 + x * x * 5) % 256) as f32 / 255.0
        };
        let run = |net: &Tract| {
            let side = net.patch();
            let filled = |planes: &mut [f32]| {
                let places = (height / side) * (width / side);
                for (at, value) in planes.iter_mut().enumerate() {
                    let (plane, at) = (at / places, at % places);
                    let (channel, of_patch) = (plane / (side * side), plane % (side * side));
                    let (row, column) = (at / (width / side), at % (width / side));
                    let (y, x) = (of_patch / side, of_patch % side);
                    *value = pixel(channel, row * side + y, column * side + x);
                }
            };
            net.run(height, width, &filled).unwrap()
        };
        let (one, other) = (run(&plain), run(&in_patches));
        assert_eq!(one.len(), 48 * 3 * 5);
        let far = one.iter().zip(&other).map(|(a, b)| (a - b).abs());
        let far = far.fold(0.0, f32::max);
        assert!(far < 1e-3, "{far}");
        let classifier = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/model-server/model/efficientnet-lite0.onnx"
        );
        let overlapping = Tract::load(&std::fs::read(classifier).unwrap(), "model.onnx", 3);
        assert_eq!(overlapping.unwrap().in_patches(28).unwrap().patch(), 1);
    }
}
