use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc;

use sidecod_wire::bundle::Bundle;

use super::super::{Content, Decoder};
use super::*;

const PANICS: i16 = 99;
const FAILS: i16 = 98;

/// Paints every place with its first channel's symbol, and notes what it was asked for.
struct Painter {
    stride: usize,
    places: usize,
    asked: Arc<Mutex<Vec<Shape>>>,
    /// Each forward but those of the warming waits for one message.
    gate: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Decoder for Painter {
    fn decode(
        &self,
        symbols: &[f32],
        _quality: usize,
        shape: Shape,
        pixels: &mut Vec<f32>,
    ) -> Result<(), DecoderError> {
        if symbols.iter().any(|&symbol| symbol != 0.0)
            && let Some(gate) = &*self.gate.lock().unwrap()
        {
            gate.recv().unwrap();
        }
        self.asked.lock().unwrap().push(shape);
        assert!(!symbols.contains(&f32::from(PANICS)), "of the test");
        if symbols.contains(&f32::from(FAILS)) {
            return Err(DecoderError("out of memory".to_owned()));
        }
        pixels.clear();
        for window in symbols.chunks_exact(shape.symbols() / shape.count) {
            for _channel in 0..3 {
                for row in window[..shape.height * shape.width].chunks_exact(shape.width) {
                    for _ in 0..self.stride {
                        for symbol in row {
                            pixels.extend(std::iter::repeat_n(symbol / 255.0, self.stride));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn batch_places(&self) -> usize {
        self.places
    }
}

struct Bench {
    codec: Arc<Codec>,
    pool: Pool,
    asked: Arc<Mutex<Vec<Shape>>>,
}

async fn bench(queue: usize, gate: Option<mpsc::Receiver<()>>) -> Bench {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/codecs/photo-v0");
    let file = |name| std::fs::read(folder.join(name)).unwrap();
    let mut bundle = Bundle::parse(&file("manifest.json"), &file("tables.bin")).unwrap();
    bundle.manifest.tile = 16;
    bundle.manifest.overlap = 4;
    let asked = Arc::<Mutex<Vec<Shape>>>::default();
    let decoder = Box::new(Painter {
        stride: bundle.manifest.stride as usize,
        places: 4 * 16 * 16,
        asked: asked.clone(),
        gate: Mutex::new(gate),
    });
    let codec = Arc::new(Codec { bundle, decoder });
    let settings = Settings {
        threads: 1,
        queue,
        max_wait: Duration::from_mins(1),
        max_batch: 4,
    };
    let (pool, all_warmed) = Pool::start(std::slice::from_ref(&codec), settings).unwrap();
    for warmed in all_warmed {
        warmed.await.unwrap().unwrap();
    }
    asked.lock().unwrap().clear();
    Bench { codec, pool, asked }
}

impl Decoded {
    fn rgb(self) -> Vec<u8> {
        match self.content {
            Content::Rgb(rgb) => rgb,
            Content::Values(values) => panic!("no picture: {values:?}"),
        }
    }
}

type Waiting = oneshot::Receiver<Result<Decoded, DecoderError>>;

impl Bench {
    /// Submits a picture of `width * height` latent places, all of one symbol.
    fn submit(&self, width: u32, height: u32, symbol: i16) -> Result<Waiting, Full> {
        let manifest = &self.codec.bundle.manifest;
        let (rows, columns) = (height as usize, width as usize);
        let mut symbols = Symbols::zeros(manifest.channels, rows, columns);
        symbols.data.fill(symbol);
        let size = (width * manifest.stride, height * manifest.stride);
        self.pool.submit(self.codec.clone(), 0, symbols, size)
    }

    /// Waits until the decode thread has taken all that was submitted.
    async fn taken(&self) {
        while self.pool.queue.waiting() > 0 {
            tokio::task::yield_now().await;
        }
    }

    fn counts(&self) -> Vec<usize> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|shape| shape.count).collect()
    }
}

#[tokio::test]
async fn every_window_comes_to_its_place() {
    let bench = bench(8, None).await;
    let manifest = &bench.codec.bundle.manifest;
    let (rows, columns) = (37, 61);
    let mut symbols = Symbols::zeros(manifest.channels, rows, columns);
    for (at, symbol) in symbols.data.iter_mut().enumerate() {
        *symbol = (at % 97) as i16;
    }
    let expected = symbols.data.clone();
    let (width, height) = (columns as u32 * 4 - 3, rows as u32 * 4 - 1);
    let waiting = bench
        .pool
        .submit(bench.codec.clone(), 0, symbols, (width, height));
    let rgb = waiting.unwrap().await.unwrap().unwrap().rgb();
    assert_eq!(rgb.len(), (width * height * 3) as usize);
    for (at, octet) in rgb.iter().enumerate() {
        let (x, y) = (at / 3 % width as usize, at / 3 / width as usize);
        let symbol = expected[y / 4 * columns + x / 4];
        assert_eq!(i16::from(*octet), symbol, "{x},{y}");
    }
    for shape in &*bench.asked.lock().unwrap() {
        assert_eq!((shape.height, shape.width), (15, 16));
        assert!(shape.count <= 4);
    }
}

#[tokio::test]
async fn pictures_of_one_shape_are_decoded_together_and_large_ones_take_turns() {
    let (open, gate) = mpsc::channel();
    let bench = bench(16, Some(gate)).await;
    // 64 by 16 places are 5 windows: it waits at the gate with the first 4 of them.
    let large = bench.submit(64, 16, 1).unwrap();
    bench.taken().await;
    let small: Vec<_> = (0..3).map(|_| bench.submit(7, 5, 2).unwrap()).collect();
    let other = bench.submit(5, 7, 3).unwrap();
    (0..4).for_each(|_| open.send(()).unwrap());
    for waiting in small {
        let rgb = waiting.await.unwrap().unwrap().rgb();
        assert_eq!(rgb, [2].repeat(28 * 20 * 3));
    }
    assert_eq!(other.await.unwrap().unwrap().rgb()[0], 3);
    let rgb = large.await.unwrap().unwrap().rgb();
    assert_eq!(rgb, [1].repeat(256 * 64 * 3));
    assert_eq!(bench.counts(), [4, 3, 1, 1]);
}

#[tokio::test]
async fn a_full_queue_refuses_and_makes_room_of_what_nobody_waits_for() {
    let (open, gate) = mpsc::channel();
    let bench = bench(2, Some(gate)).await;
    let taken = bench.submit(1, 1, 1).unwrap();
    bench.taken().await;
    let first = bench.submit(2, 1, 1).unwrap();
    let second = bench.submit(3, 1, 1).unwrap();
    assert_eq!(bench.submit(4, 1, 1).unwrap_err(), Full);
    drop(first);
    let third = bench.submit(4, 1, 1).unwrap();
    (0..3).for_each(|_| open.send(()).unwrap());
    for waiting in [taken, second, third] {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(bench.counts().len(), 3);
}

#[tokio::test]
async fn a_decoder_that_fails_or_panics_fails_its_batch_and_nothing_else() {
    let bench = bench(8, None).await;
    for (symbol, says) in [(FAILS, "out of memory"), (PANICS, "panicked")] {
        let answer = bench.submit(3, 3, symbol).unwrap().await.unwrap();
        assert_eq!(answer.unwrap_err(), DecoderError(says.to_owned()));
        let good = bench.submit(3, 3, 5).unwrap().await.unwrap().unwrap();
        assert_eq!(good.rgb(), [5].repeat(12 * 12 * 3));
    }
}

#[tokio::test]
async fn dropping_the_pool_ends_its_threads_and_those_who_wait() {
    let (open, gate) = mpsc::channel();
    let bench = bench(8, Some(gate)).await;
    let taken = bench.submit(64, 64, 1).unwrap();
    bench.taken().await;
    let waiting = bench.submit(1, 1, 1).unwrap();
    let end = tokio::task::spawn_blocking(move || drop(bench));
    assert!(waiting.await.is_err());
    open.send(()).unwrap();
    end.await.unwrap();
    assert!(taken.await.is_err());
}
