//! Samples without loss: FLAC (RFC 9639).
//!
//! It has whole numbers alone. Floating-point samples that were made of such, as those of most programs
//! are, cross as these: the very same numbers come back.

use std::fmt::Display;

use claxon::{FlacReader, FlacReaderOptions};
use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, Stream};
use flacenc::config::Encoder;
use flacenc::encode_fixed_size_frame;
use flacenc::error::Verify;
use flacenc::source::{Fill, FrameBuf};

use super::{FLOAT, Samples, SoundError};

/// Samples in a second that the encoder takes.
pub(super) const MAX_RATE: u32 = 96_000;

fn failed(reason: &dyn Display) -> SoundError {
    SoundError::Codec {
        codec: "FLAC",
        reason: reason.to_string(),
    }
}

/// Bits of the whole numbers that say these samples exactly; none where they are none.
pub(super) fn bits(bytes: &[u8], samples: &Samples) -> Option<u8> {
    if samples.width < FLOAT {
        return Some(8 * samples.width);
    }
    [16, 24].into_iter().find(|&bits| {
        let (numbers, _) = bytes.as_chunks();
        numbers.iter().all(|number| {
            let number = f32::from_le_bytes(*number);
            // Not -0.0 either.
            float(whole(number, bits), bits).to_bits() == number.to_bits()
        })
    })
}

/// The whole number of so many bits that is nearest to a sample.
fn whole(sample: f32, bits: u8) -> i32 {
    let scale = 1_i32 << (bits - 1);
    ((sample * scale as f32) as i32).clamp(-scale, scale - 1)
}

/// The sample that a whole number of so many bits says.
fn float(whole: i32, bits: u8) -> f32 {
    whole as f32 / (1_i32 << (bits - 1)) as f32
}

/// The stream of these samples, as whole numbers of so many bits.
pub(super) fn encode(bytes: &[u8], samples: &Samples, bits: u8) -> Result<Vec<u8>, SoundError> {
    let (channels, width) = (usize::from(samples.channels), usize::from(samples.width));
    let config = Encoder::default().into_verified();
    let config = config.map_err(|(_, error)| failed(&error))?;
    let size = config.block_size;
    let stream = Stream::new(samples.rate as usize, channels, bits.into());
    let mut stream = stream.map_err(|error| failed(&error))?;
    let info = stream.stream_info_mut();
    let sizes = info.set_block_sizes(size, size);
    sizes.map_err(|error| failed(&error))?;
    info.set_total_samples(samples.count as usize);
    let mut sink = ByteSink::new();
    stream.write(&mut sink).map_err(|error| failed(&error))?;
    // Block by block: what stands between samples and bits is several times as large.
    let block = FrameBuf::with_size(channels, size);
    let mut block = block.map_err(|error| failed(&error))?;
    for (number, bytes) in bytes.chunks(size * channels * width).enumerate() {
        let filled = if samples.width == FLOAT {
            let (numbers, _) = bytes.as_chunks();
            let number = |number: &[u8; 4]| whole(f32::from_le_bytes(*number), bits);
            block.fill_interleaved(&numbers.iter().map(number).collect::<Vec<_>>())
        } else {
            block.fill_le_bytes(bytes, width)
        };
        filled.map_err(|error| failed(&error))?;
        let frame = encode_fixed_size_frame(&config, &block, number, stream.stream_info());
        let written = frame.map_err(|error| failed(&error))?.write(&mut sink);
        written.map_err(|error| failed(&error))?;
    }
    Ok(sink.into_inner())
}

/// Appends the samples of a stream, if they are these.
pub(super) fn decode(code: &[u8], samples: &Samples, file: &mut Vec<u8>) -> Result<(), SoundError> {
    let options = FlacReaderOptions {
        metadata_only: false,
        read_vorbis_comment: false,
    };
    let mut reader = FlacReader::new_ext(code, options).map_err(|error| failed(&error))?;
    let info = reader.streaminfo();
    let (channels, width) = (u32::from(samples.channels), samples.width);
    let bits = match (width, info.bits_per_sample) {
        (FLOAT, 16) => 16,
        (FLOAT, 24) => 24,
        (width, bits) if u32::from(8 * width) == bits => 8 * width,
        _ => return Err(failed(&"the stream has other samples")),
    };
    if info.channels != channels {
        return Err(failed(&"the stream has other channels"));
    }
    let mut left = samples.count;
    let mut blocks = reader.blocks();
    let mut buffer = Vec::new();
    while let Some(block) = blocks
        .read_next_or_eof(buffer)
        .map_err(|error| failed(&error))?
    {
        left = (block.channels() == channels)
            .then(|| left.checked_sub(block.duration()))
            .flatten()
            .ok_or_else(|| failed(&"the stream has more samples than it should"))?;
        for at in 0..block.duration() {
            for channel in 0..channels {
                let sample = block.sample(channel, at);
                if width == FLOAT {
                    file.extend_from_slice(&float(sample, bits).to_le_bytes());
                } else {
                    file.extend_from_slice(&sample.to_le_bytes()[..width.into()]);
                }
            }
        }
        buffer = block.into_buffer();
    }
    match left {
        0 => Ok(()),
        left => Err(failed(&format!("{left} samples are missing"))),
    }
}
