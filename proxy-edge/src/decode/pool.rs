//! The decode threads.
//!
//! They live as long as the process: libtorch's memory grows with every new thread that runs a
//! model. A thread whose decoder panics fails the pictures of that batch and goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sidecod_wire::entropy::Symbols;
use tokio::sync::oneshot;

use super::job::{Decoded, Job};
use super::queue::{Bounds, Full, Queue};
use super::{Codec, DecoderError, Shape};

/// Bounds of the pool.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Threads.
    pub threads: usize,
    /// Pictures that wait.
    pub queue: usize,
    /// How long a picture may be expected to wait.
    pub max_wait: Duration,
    /// Windows that are decoded together.
    pub max_batch: usize,
}

/// The decode threads and their queue. Dropping it ends them.
pub struct Pool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

/// Tells when a decode thread has warmed every codec.
pub type Warmed = oneshot::Receiver<Result<(), DecoderError>>;

impl Pool {
    /// Starts the threads. Each warms every codec before it takes its first picture.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(
        codecs: &[Arc<Codec>],
        settings: Settings,
    ) -> std::io::Result<(Self, Vec<Warmed>)> {
        let queue = Arc::new(Queue::new(Bounds {
            pictures: settings.queue,
            wait: settings.max_wait,
            threads: settings.threads,
        }));
        let mut pool = Self {
            queue: queue.clone(),
            threads: Vec::with_capacity(settings.threads),
        };
        let mut all_warmed = Vec::with_capacity(settings.threads);
        for index in 0..settings.threads {
            let (tell, warmed) = oneshot::channel();
            let (queue, codecs) = (queue.clone(), codecs.to_vec());
            let thread = std::thread::Builder::new()
                .name(format!("decode-{index}"))
                .spawn(move || {
                    let outcome = warm(&codecs, settings.max_batch);
                    let warm = outcome.is_ok();
                    let _ = tell.send(outcome);
                    if warm {
                        work(&queue, settings.max_batch);
                    }
                })?;
            pool.threads.push(thread);
            all_warmed.push(warmed);
        }
        Ok((pool, all_warmed))
    }

    /// Queues a picture of `size` (width, height) pixels, coded at the quality of this index. Dropping the receiver gives it up.
    ///
    /// # Errors
    /// [`Full`] if as many pictures as allowed wait already, or it would wait too long.
    pub fn submit(
        &self,
        codec: Arc<Codec>,
        quality: usize,
        symbols: Symbols,
        size: (u32, u32),
    ) -> Result<oneshot::Receiver<Result<Decoded, DecoderError>>, Full> {
        let (answer, receiver) = oneshot::channel();
        self.queue
            .push(Job::new(codec, quality, symbols, size, answer))?;
        Ok(receiver)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A panic outside of a batch has nothing left to harm here.
            let _ = thread.join();
        }
    }
}

/// Runs every codec at its largest window and at two small ones, so that the first request does
/// not wait for what libtorch sets up once.
fn warm(codecs: &[Arc<Codec>], max_batch: usize) -> Result<(), DecoderError> {
    let run = || {
        let mut pixels = Vec::new();
        for codec in codecs {
            let manifest = &codec.bundle.manifest;
            let tile = manifest.tile as usize;
            let windows = match &manifest.point {
                // A feature has one size.
                Some(point) => {
                    let (width, height) = point.size();
                    vec![manifest.latent_size(width, height)]
                }
                None => [1, tile.div_ceil(4), tile]
                    .map(|side| (side, side))
                    .to_vec(),
            };
            for (height, width) in windows {
                let whole = room(codec, (height, width), max_batch);
                for count in [1, whole] {
                    let shape = Shape {
                        count,
                        channels: manifest.channels,
                        height,
                        width,
                    };
                    let symbols = vec![0.0; shape.symbols()];
                    decode(codec, &symbols, 0, shape, &mut pixels)?;
                    if whole == 1 {
                        break;
                    }
                }
            }
        }
        Ok(())
    };
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(DecoderError("panicked while it was warmed".to_owned())))
}

fn work(queue: &Queue, max_batch: usize) {
    let mut batch = Batch::default();
    while let Some(mut jobs) = queue.take(|job| room(job.codec(), job.window(), max_batch)) {
        let codec = jobs.first().map(|job| job.key().codec).unwrap_or_default();
        let (places, begin) = (places(&jobs), Instant::now());
        match catch_unwind(AssertUnwindSafe(|| batch.run(&mut jobs, max_batch))) {
            Ok(Ok(())) => {
                queue.took(codec, places - self::places(&jobs), begin.elapsed());
                for job in jobs {
                    if job.left() == 0 {
                        job.finish();
                    } else {
                        queue.put_back(job);
                    }
                }
            }
            Ok(Err(error)) => give_up(jobs, &error),
            Err(_) => {
                metrics::counter!("sidecod_edge_decode_panics_total").increment(1);
                give_up(jobs, &DecoderError("panicked".to_owned()));
                batch = Batch::default();
            }
        }
    }
}

fn places(jobs: &[Job]) -> usize {
    jobs.iter().map(Job::places_left).sum()
}

fn give_up(jobs: Vec<Job>, error: &DecoderError) {
    tracing::error!(%error, pictures = jobs.len(), "a batch is not decoded");
    for job in jobs {
        job.fail(error.clone());
    }
}

/// Windows of this size that are decoded together.
fn room(codec: &Codec, (height, width): (usize, usize), max_batch: usize) -> usize {
    (codec.decoder.batch_places() / (height * width)).clamp(1, max_batch)
}

fn decode(
    codec: &Codec,
    symbols: &[f32],
    quality: usize,
    shape: Shape,
    pixels: &mut Vec<f32>,
) -> Result<(), DecoderError> {
    codec.decoder.decode(symbols, quality, shape, pixels)?;
    let expected = match codec.decoder.values() {
        Some(values) => shape.count * values,
        None => shape.samples(codec.bundle.manifest.stride as usize),
    };
    if pixels.len() == expected {
        return Ok(());
    }
    let given = pixels.len();
    Err(DecoderError(format!(
        "gives {given} samples for {shape:?}, expected {expected}"
    )))
}

/// Buffers that a thread uses again and again.
#[derive(Default)]
struct Batch {
    symbols: Vec<f32>,
    pixels: Vec<f32>,
}

impl Batch {
    /// Decodes the next windows of `jobs`, which have one key.
    fn run(&mut self, jobs: &mut [Job], max_batch: usize) -> Result<(), DecoderError> {
        let Some(first) = jobs.first() else {
            return Ok(());
        };
        let (codec, quality) = (first.codec().clone(), first.quality());
        let (height, width) = first.window();
        let mut room = room(&codec, (height, width), max_batch);
        self.symbols.clear();
        let mut counts = Vec::with_capacity(jobs.len());
        for job in jobs.iter_mut() {
            let count = job.left().min(room);
            (0..count).for_each(|ahead| job.gather(ahead, &mut self.symbols));
            room -= count;
            counts.push(count);
        }
        let shape = Shape {
            count: counts.iter().sum(),
            channels: codec.bundle.manifest.channels,
            height,
            width,
        };
        metrics::histogram!("sidecod_edge_decode_batch_size").record(shape.count as f64);
        decode(&codec, &self.symbols, quality, shape, &mut self.pixels)?;
        let mut windows = self.pixels.chunks_exact(self.pixels.len() / shape.count);
        for (job, count) in jobs.iter_mut().zip(counts) {
            windows
                .by_ref()
                .take(count)
                .for_each(|pixels| job.add(pixels));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
