//! A real photo from the shipped encoder to the model server, and one engine against the other.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod common;

use std::path::Path;

use common::{Edge, Upstream, bundle, bundle_folder, coded, frame};
use sidecod_edge::bundles;
use sidecod_edge::config::{Device, Precision};
use sidecod_edge::decode::torch::Engine;
use sidecod_edge::decode::{Decoder, Shape};
use sidecod_wire::bundle::{Bundle, DECODER_ONNX, ENCODER};
use sidecod_wire::entropy::{self, Symbols};
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{self, MediaType, Picture};
use tract_onnx::prelude::*;

fn photo(name: &str) -> Picture {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos");
    let file = std::fs::read(folder.join(name)).unwrap();
    media::decode(&file, &Limits::default()).unwrap()
}

/// Runs an ONNX file on a tensor of this shape.
fn tract(file: &Path, shape: [usize; 4], values: &[f32]) -> Vec<f32> {
    let fact = f32::fact(shape);
    let plan = onnx()
        .model_for_path(file)
        .unwrap()
        .with_input_fact(0, fact.into())
        .unwrap()
        .into_optimized()
        .unwrap()
        .into_runnable()
        .unwrap();
    let input = Tensor::from_shape(&shape, values).unwrap();
    let output = plan.run(tvec!(input.into())).unwrap();
    let output = output[0].to_plain_array_view::<f32>().unwrap();
    output.iter().copied().collect()
}

/// A photo's symbols, with its last row and column repeated up to the stride, as a device does it.
fn encode(folder: &Path, bundle: &Bundle, photo: &Picture) -> Symbols {
    let (rows, columns) = bundle.manifest.latent_size(photo.width, photo.height);
    let stride = bundle.manifest.stride as usize;
    let (high, wide) = (rows * stride, columns * stride);
    let (width, height) = (photo.width as usize, photo.height as usize);
    let mut pixels = Vec::new();
    for channel in 0..3 {
        for y in 0..high {
            for x in 0..wide {
                let at = (y.min(height - 1) * width + x.min(width - 1)) * 3 + channel;
                pixels.push(f32::from(photo.rgb[at]) / 255.0);
            }
        }
    }
    let latent = tract(&folder.join(ENCODER), [1, 3, high, wide], &pixels);
    bundle.manifest.quantize(0, &latent, rows, columns)
}

#[tokio::test]
async fn a_real_photo_looks_the_same_to_the_model_server() {
    let (upstream, bundle, photo) = (Upstream::start().await, bundle(), photo("goldfish.jpg"));
    let edge = Edge::start(upstream.address, "", "").await;
    let mut frame = frame(&bundle, MediaType::Png, photo.width, photo.height);
    coded(&mut frame.slots[0]).code = entropy::encode(
        &encode(&bundle_folder(), &bundle, &photo),
        &bundle.tables[0],
    )
    .unwrap();
    let answer = edge.client().await.frame("/record", &frame).await;
    assert_eq!(answer.status, 200);
    let got = media::decode(&upstream.last().body, &Limits::default()).unwrap();
    assert_eq!((got.width, got.height), (photo.width, photo.height));
    let squares = got.rgb.iter().zip(&photo.rgb);
    let squares: f64 = squares
        .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2))
        .sum();
    let psnr = 10.0 * (255.0_f64.powi(2) * photo.rgb.len() as f64 / squares).log10();
    println!("{psnr:.1} dB in {} bytes", frame.encode().len());
    assert!(psnr > 15.0, "{psnr:.1} dB");
}

#[test]
fn libtorch_and_tract_decode_alike() {
    let stored = bundles::read_all(&[bundle_folder()]).unwrap().remove(0);
    let decoder = Engine::start(Device::Cpu, 1, 1)
        .unwrap()
        .load(&stored)
        .unwrap();
    let whole = encode(&bundle_folder(), &stored.bundle, &photo("goldfish.jpg"));
    for (height, width) in [(1, 1), (7, 20), (32, 32)] {
        let mut symbols = Vec::new();
        for channel in 0..whole.channels {
            for y in 0..height {
                let from = (channel * whole.height + y) * whole.width;
                let row = &whole.data[from..from + width];
                symbols.extend(row.iter().copied().map(f32::from));
            }
        }
        let shape = Shape {
            count: 1,
            channels: whole.channels,
            height,
            width,
        };
        let mut by_torch = Vec::new();
        decoder.decode(&symbols, 0, shape, &mut by_torch).unwrap();
        let by_tract = tract(
            &bundle_folder().join(DECODER_ONNX),
            [1, whole.channels, height, width],
            &symbols,
        );
        assert_eq!(by_torch.len(), by_tract.len());
        let pairs = by_torch.iter().zip(&by_tract);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{height}x{width}: {worst}");
        assert!(worst <= 1.0 / 255.0, "{height}x{width}: {worst}");
    }
}

#[test]
fn numbers_of_16_bits_decode_nearly_alike() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/codecs/photo");
    let stored = bundles::read_all(std::slice::from_ref(&folder))
        .unwrap()
        .remove(0);
    let symbols = encode(&folder, &stored.bundle, &photo("goldfish.jpg"));
    let values: Vec<f32> = symbols.data.iter().copied().map(f32::from).collect();
    let shape = Shape {
        count: 1,
        channels: symbols.channels,
        height: symbols.height,
        width: symbols.width,
    };
    let engine = Engine::start(Device::Cpu, 1, 1).unwrap();
    let [full, half] = [Precision::Float32, Precision::Bfloat16].map(|precision| {
        let decoder = engine.computing_in(precision).load(&stored).unwrap();
        let mut pixels = Vec::new();
        decoder.decode(&values, 0, shape, &mut pixels).unwrap();
        pixels
    });
    let pairs = full.iter().zip(&half);
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{worst}");
    assert!(worst > 0.0 && worst <= 3.0 / 255.0, "{worst}");
}
