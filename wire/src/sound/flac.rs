//! Samples without loss: FLAC (RFC 9639).

use std::fmt::Display;

use claxon::{FlacReader, FlacReaderOptions};
use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, Stream};
use flacenc::config::Encoder;
use flacenc::encode_fixed_size_frame;
use flacenc::error::Verify;
use flacenc::source::{Fill, FrameBuf};

use super::{Samples, SoundError};

/// Samples in a second that the encoder takes.
pub(super) const MAX_RATE: u32 = 96_000;

fn failed(reason: &dyn Display) -> SoundError {
    SoundError::Codec {
        codec: "FLAC",
        reason: reason.to_string(),
    }
}

/// The stream of these samples.
pub(super) fn encode(bytes: &[u8], samples: &Samples) -> Result<Vec<u8>, SoundError> {
    let (channels, width) = (usize::from(samples.channels), usize::from(samples.width));
    let config = Encoder::default().into_verified();
    let config = config.map_err(|(_, error)| failed(&error))?;
    let size = config.block_size;
    let stream = Stream::new(samples.rate as usize, channels, width * 8);
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
        let filled = block.fill_le_bytes(bytes, width);
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
    let (channels, width) = (u32::from(samples.channels), u32::from(samples.width));
    if (info.channels, info.bits_per_sample) != (channels, width * 8) {
        return Err(failed(&"the stream has other channels, or other samples"));
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
                let sample = block.sample(channel, at).to_le_bytes();
                file.extend_from_slice(&sample[..width as usize]);
            }
        }
        buffer = block.into_buffer();
    }
    match left {
        0 => Ok(()),
        left => Err(failed(&format!("{left} samples are missing"))),
    }
}
