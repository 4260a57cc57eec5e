//! The decoder on libtorch. Nothing else here names tch.

use tch::{CModule, Cuda, Kind, TchError, Tensor};

use super::{Decoder, DecoderError, Shape};
use crate::bundles::Stored;
use crate::config::{Device, Precision};

/// A TorchScript decoder, and the tail of the model behind it where it decodes features.
pub struct TorchDecoder {
    module: CModule,
    tail: Option<CModule>,
    /// Shape of a feature, and numbers that are given for each.
    feature: Option<([i64; 3], usize)>,
    device: tch::Device,
    kind: Kind,
    stride: i64,
    qualities: usize,
    batch_places: usize,
}

/// What decoders run on, chosen once.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    device: tch::Device,
    kind: Kind,
    max_batch: usize,
}

impl From<TchError> for DecoderError {
    fn from(error: TchError) -> Self {
        // The first line says what; the rest is libtorch's own backtrace.
        let text = error.to_string();
        Self(text.lines().next().unwrap_or_default().to_owned())
    }
}

impl Engine {
    /// Sets libtorch up for the process and says in the log what it runs on. Call it before
    /// anything else here: the number of threads holds only before the first operation.
    ///
    /// # Errors
    /// [`DecoderError`] if a GPU is asked for and there is none.
    pub fn start(wanted: Device, threads: usize, max_batch: usize) -> Result<Self, DecoderError> {
        tch::set_num_threads(threads.try_into().unwrap_or(i32::MAX));
        // Profiling runs the first forwards of every shape slowly, and keeps a plan per shape.
        tch::jit::f_set_profiling_mode(false)?;
        let device = match (wanted, Cuda::is_available()) {
            (Device::Auto | Device::Cuda, true) => tch::Device::Cuda(0),
            (Device::Auto | Device::Cpu, _) => tch::Device::Cpu,
            (Device::Cuda, false) => {
                return Err(DecoderError(
                    "device is cuda, and libtorch finds no GPU".to_owned(),
                ));
            }
        };
        tracing::info!(?device, threads, "decoders run on libtorch");
        Ok(Self {
            device,
            kind: Kind::Float,
            max_batch,
        })
    }

    /// The same in other numbers. A hint in the log where that would pay.
    #[must_use]
    pub fn computing_in(mut self, precision: Precision) -> Self {
        self.kind = match precision {
            Precision::Float32 => Kind::Float,
            Precision::Bfloat16 => Kind::BFloat16,
        };
        if precision == Precision::Float32 && self.device == tch::Device::Cpu && matrix_units() {
            tracing::info!(
                "this CPU has matrix units: with precision = \"bfloat16\" it decodes several times as fast"
            );
        }
        self
    }

    /// Loads the decoder of a bundle, and the tail behind it where the bundle has one.
    ///
    /// # Errors
    /// [`DecoderError`] if they are not TorchScript that this libtorch reads.
    pub fn load(self, stored: &Stored) -> Result<TorchDecoder, DecoderError> {
        let load = |mut bytes: &[u8]| -> Result<CModule, DecoderError> {
            let mut module = CModule::load_data_on_device(&mut bytes, self.device)?;
            module.f_set_eval()?;
            Ok(module)
        };
        let mut module = load(&stored.decoder)?;
        // Weights may be stored in half precision.
        module.to(self.device, self.kind, false);
        let tail = stored.tail.as_deref().map(load).transpose()?;
        let feature = stored.bundle.manifest.point.as_ref().map(|point| {
            let values = if tail.is_some() {
                point.outputs
            } else {
                point.numbers()
            };
            (point.feature.map(|side| side as i64), values)
        });
        let manifest = &stored.bundle.manifest;
        let tile = manifest.tile as usize;
        // A larger batch costs a CPU memory and saves it nothing.
        let tiles = if self.device.is_cuda() {
            self.max_batch
        } else {
            1
        };
        Ok(TorchDecoder {
            module,
            tail,
            feature,
            device: self.device,
            kind: self.kind,
            stride: manifest.stride.into(),
            qualities: manifest.qualities.len(),
            batch_places: tiles * tile * tile,
        })
    }
}

impl Decoder for TorchDecoder {
    fn decode(
        &self,
        symbols: &[f32],
        quality: usize,
        shape: Shape,
        pixels: &mut Vec<f32>,
    ) -> Result<(), DecoderError> {
        let _no_grad = tch::no_grad_guard();
        let [count, channels, height, width] =
            [shape.count, shape.channels, shape.height, shape.width].map(|side| side as i64);
        let input = Tensor::f_from_slice(symbols)?
            .f_reshape([count, channels, height, width])?
            .f_to_device(self.device)?
            .f_to_kind(self.kind)?;
        let mut inputs = vec![input];
        // A codec of one quality need not be told which.
        if self.qualities > 1 {
            let options = (Kind::Int64, self.device);
            inputs.push(Tensor::f_full([count], quality as i64, options)?);
        }
        let mut output = self.module.forward_ts(&inputs)?.f_to_kind(Kind::Float)?;
        let expected = match self.feature {
            Some(([channels, rows, columns], _)) => [count, channels, rows, columns],
            None => [count, 3, height * self.stride, width * self.stride],
        };
        if output.size() != expected {
            return Err(DecoderError(format!(
                "gives {:?} for {shape:?}, expected {expected:?}",
                output.size()
            )));
        }
        if let Some(tail) = &self.tail {
            output = tail.forward_ts(&[output])?;
        }
        let output = output
            .f_to_device(tch::Device::Cpu)?
            .f_to_kind(Kind::Float)?
            .f_contiguous()?;
        let samples = output.numel();
        pixels.resize(samples, 0.0);
        output.f_copy_data(pixels, samples)?;
        Ok(())
    }

    fn batch_places(&self) -> usize {
        self.batch_places
    }

    fn values(&self) -> Option<usize> {
        self.feature.map(|(_, values)| values)
    }
}

/// Whether this CPU multiplies matrices of bfloat16.
fn matrix_units() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|cpus| cpus.contains("amx_bf16"))
}
