//! Samples with loss: packets of Opus (RFC 6716), one for each 60 ms.
//!
//! Samples at a rate a little below one that Opus has, such as 44.1 kHz, are coded as if they were of
//! that one, 48 kHz, and so a little slower: nothing has to be resampled, and as many samples come back
//! as there were.

use std::fmt::Display;

use opus_pure::{Application, MAX_PACKET_BYTES, OpusDecoder, OpusEncoder, RateControl};

use super::{FLOAT, Samples, SoundError};
use crate::protobuf;

fn failed(reason: &dyn Display) -> SoundError {
    SoundError::Codec {
        codec: "Opus",
        reason: reason.to_string(),
    }
}

/// Largest sample that is coded, in parts of full scale.
const LOUDEST: f32 = 4.0;

/// Whether there is Opus for these samples.
pub(super) fn takes(bytes: &[u8], samples: &Samples) -> bool {
    let finite = || {
        let mut numbers = bytes.chunks_exact(samples.width.into()).map(float);
        samples.width < FLOAT || numbers.all(|sample| sample.abs() <= LOUDEST)
    };
    stream(samples).is_ok() && finite()
}

/// What Opus takes samples for.
#[derive(Clone, Copy)]
struct Stream {
    /// Samples of a channel in a second.
    rate: u32,
    channels: usize,
    /// Samples of each channel in a packet.
    packet: usize,
}

impl Stream {
    /// How many packets there are, of which the first begins `delay` samples too early.
    fn packets(self, samples: &Samples, delay: usize) -> usize {
        (samples.count as usize + delay).div_ceil(self.packet)
    }
}

/// What Opus takes these samples for; an error where their rate is none of its own, nor up to a tenth
/// below.
fn stream(samples: &Samples) -> Result<Stream, SoundError> {
    let mut rates = [8000, 12_000, 16_000, 24_000, 48_000].into_iter();
    match rates.find(|&rate| (rate - rate / 10..=rate).contains(&samples.rate)) {
        Some(rate) if samples.channels <= 2 => Ok(Stream {
            rate,
            channels: samples.channels.into(),
            packet: rate as usize * 60 / 1000,
        }),
        _ => Err(failed(&"has no such samples")),
    }
}

/// Packets for these samples, `kbits` kilobits a second.
pub(super) fn encode(bytes: &[u8], samples: &Samples, kbits: u16) -> Result<Vec<u8>, SoundError> {
    let stream = stream(samples)?;
    // For `Voip` it would filter speech first, as ears like it.
    let encoder = OpusEncoder::new(stream.rate as i32, stream.channels, Application::Audio);
    let mut encoder = encoder.map_err(|error| failed(&error))?;
    let bits = u64::from(kbits) * 1000 * u64::from(stream.rate) / u64::from(samples.rate);
    encoder.bitrate_bps = bits as i32;
    encoder.rate_control = RateControl::Vbr;
    encoder.lsb_depth = i32::from(samples.width.min(3)) * 8;
    let delay = encoder.lookahead();
    let mut code = Vec::new();
    protobuf::put_varint(&mut code, delay as u64);
    let mut written = vec![0; MAX_PACKET_BYTES];
    let mut block = vec![0.0; stream.packet * stream.channels];
    let mut rest = bytes.chunks_exact(samples.width.into());
    for _ in 0..stream.packets(samples, delay) {
        for sample in &mut block {
            *sample = rest.next().map_or(0.0, float);
        }
        let length = encoder.encode(&block, stream.packet, &mut written);
        let length = length.map_err(|error| failed(&error))?;
        protobuf::put_varint(&mut code, length as u64);
        code.extend_from_slice(&written[..length]);
    }
    Ok(code)
}

/// A sample, as a rule between -1 and 1.
fn float(bytes: &[u8]) -> f32 {
    if let Some(number) = bytes.as_array() {
        return f32::from_le_bytes(*number);
    }
    let mut high = [0; 4];
    high[4 - bytes.len()..].copy_from_slice(bytes);
    i32::from_le_bytes(high) as f32 / -(i32::MIN as f32)
}

/// Appends the samples of packets, if they are so many.
pub(super) fn decode(code: &[u8], samples: &Samples, file: &mut Vec<u8>) -> Result<(), SoundError> {
    let stream = stream(samples)?;
    let decoder = OpusDecoder::new(stream.rate as i32, stream.channels);
    let mut decoder = decoder.map_err(|error| failed(&error))?;
    let mut rest = code;
    let delay = varint(&mut rest)?;
    if delay > stream.packet {
        return Err(failed(&"the first sample is none of the first packet"));
    }
    let mut skip = delay * stream.channels;
    let mut left = samples.all() as usize;
    let mut block = vec![0.0; stream.packet * stream.channels];
    for _ in 0..stream.packets(samples, delay) {
        let length = varint(&mut rest)?;
        let (now, behind) = rest
            .split_at_checked(length)
            .filter(|(now, _)| !now.is_empty())
            .ok_or_else(|| failed(&"a packet is missing"))?;
        rest = behind;
        let count = decoder
            .decode(now, stream.packet, &mut block)
            .map_err(|error| failed(&error))?;
        if count != stream.packet {
            let packet = stream.packet;
            return Err(failed(&format!(
                "a packet has {count} samples, not {packet}"
            )));
        }
        let some = &block[skip..];
        let some = &some[..left.min(some.len())];
        for &sample in some {
            write(sample, samples.width, file);
        }
        left -= some.len();
        skip = 0;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(failed(&"there are more packets than samples"))
    }
}

/// Appends a sample; of whole numbers one between -1 and 1.
fn write(sample: f32, width: u8, file: &mut Vec<u8>) {
    if width == FLOAT {
        file.extend_from_slice(&sample.to_le_bytes());
        return;
    }
    let most = f64::from(1_i32 << (8 * width - 1));
    let value = (f64::from(sample) * most).round().clamp(-most, most - 1.0);
    file.extend_from_slice(&(value as i32).to_le_bytes()[..width.into()]);
}

fn varint(rest: &mut &[u8]) -> Result<usize, SoundError> {
    let (value, bytes) = protobuf::varint(rest).ok_or_else(|| failed(&"a number is missing"))?;
    *rest = &rest[bytes..];
    value.try_into().map_err(|error| failed(&error))
}
