//! What sounds cross as: bytes, times and how near the samples come back, by the code of the sidecars.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sidecod_wire::frame::{Frame, Slot};
use sidecod_wire::limits::Limits;
use sidecod_wire::slot::{Skeleton, Text};
use sidecod_wire::sound::{Samples, Sound, SoundCodec, Wav};

use crate::photos;

/// What one codec gave, over all sounds.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub codec: String,
    /// Mean bytes of the whole frame.
    pub bytes_mean: f64,
    /// Bytes of all frames over those of all files.
    pub share: f64,
    /// Bits of the frames for each second of sound, in thousands.
    pub kbits: f64,
    /// Share of the files that come back byte for byte.
    pub exact: f64,
    /// Mean ratio of signal to error in dB, of the files that do not.
    pub snr_db: Option<f64>,
    /// Milliseconds on one core from file to frame, for each second of sound.
    pub encode_ms: f64,
    /// Milliseconds on one core from frame to file, for each second of sound.
    pub decode_ms: f64,
}

/// What all codecs gave.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Number of sounds.
    pub sounds: usize,
    /// Their seconds, all together.
    pub seconds: f64,
    /// Mean bytes of their files.
    pub file_bytes: f64,
    /// One row for each codec.
    pub codecs: Vec<Row>,
}

#[derive(Default)]
struct Sums {
    bytes: usize,
    exact: usize,
    snr: f64,
    encode: f64,
    decode: f64,
}

/// Codes every WAV file of a folder with each codec, and decodes it again.
///
/// # Errors
/// If the folder has no WAV file, or one is not of samples that are coded.
pub fn measure(folder: &Path, codecs: &[SoundCodec]) -> Result<Report> {
    let mut files = photos::files(folder, &["wav"])?;
    files.sort();
    ensure!(!files.is_empty(), "no WAV files in {}", folder.display());
    let bar = ProgressBar::new(files.len() as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} sounds, {eta} left",
    )?);
    let mut all: Vec<Sums> = codecs.iter().map(|_| Sums::default()).collect();
    let (mut seconds, mut bytes) = (0.0, 0);
    for path in &files {
        let name = || path.display().to_string();
        let file = std::fs::read(path).with_context(name)?;
        let wav = Wav::parse(&file).with_context(|| {
            format!("{}: no WAV file with samples of 16, 24 or 32 bits", name())
        })?;
        seconds += f64::from(wav.samples.count) / f64::from(wav.samples.rate);
        bytes += file.len();
        for (codec, sums) in codecs.iter().zip(&mut all) {
            one(&file, &wav, *codec, sums).with_context(name)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let count = files.len() as f64;
    let rows = codecs.iter().zip(all).map(|(codec, sums)| {
        let lossy = files.len() - sums.exact;
        Row {
            codec: codec.to_string(),
            bytes_mean: sums.bytes as f64 / count,
            share: sums.bytes as f64 / bytes as f64,
            kbits: sums.bytes as f64 * 8e-3 / seconds,
            exact: sums.exact as f64 / count,
            snr_db: (lossy > 0).then(|| sums.snr / lossy as f64),
            encode_ms: sums.encode * 1e3 / seconds,
            decode_ms: sums.decode * 1e3 / seconds,
        }
    });
    Ok(Report {
        sounds: files.len(),
        seconds,
        file_bytes: bytes as f64 / count,
        codecs: rows.collect(),
    })
}

fn one(file: &[u8], wav: &Wav, codec: SoundCodec, sums: &mut Sums) -> Result<()> {
    let limits = Limits::default();
    let start = Instant::now();
    let sound = Sound::of(file, codec, &limits)?;
    let frame = Frame {
        bundle: [0; 8],
        quality: 0,
        content_type: Some("audio/wav".to_owned()),
        skeleton: Skeleton {
            offsets: vec![0],
            ..Skeleton::default()
        },
        slots: vec![Slot::Sound {
            text: Text::Raw,
            sound,
        }],
    };
    let frame = frame.encode();
    sums.encode += start.elapsed().as_secs_f64();
    sums.bytes += frame.len();
    let start = Instant::now();
    let frame = Frame::decode(&frame, &limits)?;
    let Some(Slot::Sound { sound, .. }) = frame.slots.first() else {
        anyhow::bail!("the frame has no sound");
    };
    let back = sound.file()?;
    sums.decode += start.elapsed().as_secs_f64();
    if back == file {
        sums.exact += 1;
    } else {
        let range = wav.range.clone();
        sums.snr += snr(&file[range.clone()], &back[range], &wav.samples);
    }
    Ok(())
}

/// Ratio of signal to error, in dB.
fn snr(before: &[u8], after: &[u8], samples: &Samples) -> f64 {
    let width = usize::from(samples.width);
    let number = |bytes: &[u8]| {
        if let Some(float) = bytes.as_array() {
            return f64::from(f32::from_le_bytes(*float));
        }
        let mut high = [0; 4];
        high[4 - width..].copy_from_slice(bytes);
        f64::from(i32::from_le_bytes(high))
    };
    let pairs = before.chunks_exact(width).zip(after.chunks_exact(width));
    let (mut signal, mut error) = (0.0, 0.0);
    for (a, b) in pairs.map(|(a, b)| (number(a), number(b))) {
        signal += a * a;
        error += (a - b) * (a - b);
    }
    10.0 * (signal / error).log10()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sounds,
            seconds,
            file_bytes,
            codecs,
        } = self;
        writeln!(
            f,
            "{sounds} sounds, {seconds:.1} s, {file_bytes:.0} bytes each\n"
        )?;
        writeln!(
            f,
            "| codec | bytes | share | kbit/s | byte for byte | SNR, dB | encode, ms/s | decode, ms/s |"
        )?;
        write!(f, "|---|---|---|---|---|---|---|---|")?;
        for row in codecs {
            let snr = row.snr_db.map_or_else(String::new, |db| format!("{db:.1}"));
            write!(
                f,
                "\n| {} | {:.0} | {:.1} % | {:.1} | {:.0} % | {snr} | {:.2} | {:.2} |",
                row.codec,
                row.bytes_mean,
                row.share * 100.0,
                row.kbits,
                row.exact * 100.0,
                row.encode_ms,
                row.decode_ms,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::workspace;

    #[test]
    fn speech_takes_half_without_loss_and_a_tenth_with_it() {
        let codecs = [SoundCodec::Flac, SoundCodec::Opus(16)];
        let report = measure(&workspace().join("examples/speech"), &codecs).unwrap();
        let [flac, opus] = &report.codecs[..] else {
            panic!("two codecs")
        };
        assert_eq!((flac.exact, flac.snr_db), (1.0, None));
        assert!((0.3..0.7).contains(&flac.share), "{report}");
        assert!(opus.exact < 0.5, "{report}");
        assert!(opus.share < 0.1 && opus.snr_db > Some(3.0), "{report}");
    }
}
