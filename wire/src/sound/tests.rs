use proptest::prelude::*;

use super::*;
use crate::limits::Limits;
use crate::slot::{self, Form, Preset, Text};

/// Speech-like samples: tones whose loudness changes, and some noise.
fn samples(samples: &Samples) -> Vec<u8> {
    let mut seed = 7_u32;
    let most = f64::from(1_i32 << (8 * samples.width.min(3) - 1));
    let mut bytes = Vec::new();
    for at in 0..samples.count {
        let time = f64::from(at) / f64::from(samples.rate);
        for channel in 0..samples.channels {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(seed >> 16) / 65_536.0 - 0.5;
            let pitch = 180.0 + 40.0 * f64::from(channel);
            let tone = |harmonic: f64| (time * harmonic * pitch * std::f64::consts::TAU).sin();
            let loud = 0.5 + 0.5 * (time * 9.0).sin();
            let value = loud * (0.3 * tone(1.0) + 0.2 * tone(2.0) + 0.1 * tone(5.0)) + 0.01 * noise;
            let whole = (value * most) as i32;
            let bytes_of = match samples.width {
                FLOAT => (value as f32).to_le_bytes(),
                _ => whole.to_le_bytes(),
            };
            bytes.extend_from_slice(&bytes_of[..samples.width.into()]);
        }
    }
    bytes
}

fn chunk(name: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut chunk = [name, &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    if !bytes.len().is_multiple_of(2) {
        chunk.push(0);
    }
    chunk
}

fn format_chunk(samples: &Samples) -> Vec<u8> {
    let block = u16::from(samples.channels) * u16::from(samples.width);
    let kind = if samples.width == FLOAT { 3 } else { 1 };
    let mut format = vec![kind, 0, samples.channels, 0];
    format.extend(samples.rate.to_le_bytes());
    format.extend((samples.rate * u32::from(block)).to_le_bytes());
    format.extend(block.to_le_bytes());
    format.extend([samples.width * 8, 0]);
    format
}

/// A file with chunks before and behind its samples.
fn wav(samples: &Samples) -> Vec<u8> {
    wav_of(samples, &self::samples(samples))
}

fn wav_of(samples: &Samples, data: &[u8]) -> Vec<u8> {
    let chunks = [
        chunk(b"LIST", b"INFOabc"),
        chunk(b"fmt ", &format_chunk(samples)),
        chunk(b"data", data),
        chunk(b"id3 ", b"end"),
    ]
    .concat();
    let size = (chunks.len() as u32 + 4).to_le_bytes();
    [&b"RIFF"[..], &size, b"WAVE", &chunks].concat()
}

fn speech() -> Samples {
    Samples {
        channels: 1,
        width: 2,
        rate: 16_000,
        count: 40_000,
    }
}

/// Floating-point samples as programs make them of whole numbers.
fn divided(numbers: impl IntoIterator<Item = i32>, by: f32) -> Vec<u8> {
    let numbers = numbers.into_iter();
    numbers
        .flat_map(|number| (number as f32 / by).to_le_bytes())
        .collect()
}

/// Ratio of signal to what differs, in dB, of samples of so many bytes.
fn snr(a: &[u8], b: &[u8], width: u8) -> f64 {
    let numbers = |bytes: &[u8]| -> Vec<f64> {
        let samples = bytes.chunks_exact(width.into());
        samples
            .map(|sample| match *sample {
                [a, b] => f64::from(i16::from_le_bytes([a, b])),
                [a, b, c] => f64::from(i32::from_le_bytes([0, a, b, c])),
                [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
                _ => unreachable!(),
            })
            .collect()
    };
    let (a, b) = (numbers(a), numbers(b));
    let signal: f64 = a.iter().map(|a| a * a).sum();
    let noise: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    10.0 * (signal / noise).log10()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn flac_gives_every_file_back(
        channels in 1_u8..=8,
        width in 2_u8..=4,
        rate in prop_oneof![Just(8000_u32), Just(16_000), Just(44_100), 1_u32..=96_000],
        count in prop_oneof![1_u32..40, 4000_u32..9000],
    ) {
        let file = wav(&Samples { channels, width, rate, count });
        let sound = Sound::of(&file, SoundCodec::Flac, &Limits::default()).unwrap();
        prop_assert_eq!(sound.file().unwrap(), file);
    }

    #[test]
    fn floating_point_samples_are_given_back_whatever_they_are(
        bits in prop::collection::vec(any::<u32>(), 1..200),
        small in prop::collection::vec(-32_768_i32..32_768, 1..200),
        large in prop::collection::vec(-(1_i32 << 23)..1 << 23, 1..200),
    ) {
        let any: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        for (data, name) in [
            (any, None),
            (divided(small, 32_768.0), Some("FLAC")),
            (divided(large, 8_388_608.0), Some("FLAC")),
        ] {
            let format = Samples { width: FLOAT, count: data.len() as u32 / 4, ..speech() };
            let file = wav_of(&format, &data);
            let sound = Sound::of(&file, SoundCodec::Flac, &Limits::default()).unwrap();
            prop_assert!(name.is_none_or(|name| sound.code.name() == name));
            prop_assert_eq!(sound.file().unwrap(), file);
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_samples(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        codec in 0_usize..3,
        width in 2_u8..=4,
    ) {
        let code = [Code::Flac, Code::Opus, Code::Pcm][codec](bytes);
        let samples = Samples { width, ..speech() };
        let sound = Sound { head: Vec::new(), tail: Vec::new(), samples, code };
        if let Ok(file) = sound.file() {
            prop_assert_eq!(file.len() as u64, samples.bytes());
        }
    }

    #[test]
    fn any_chunks_are_a_file_or_not(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let file = [&b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0"[..], &format_chunk(&speech()), &bytes].concat();
        if let Some(wav) = Wav::parse(&file) {
            prop_assert!(wav.range.end <= file.len());
            prop_assert_eq!(wav.range.len() as u64, wav.samples.bytes());
        }
    }
}

#[test]
fn noise_is_given_back_too() {
    let format = speech();
    let mut seed = 1_u32;
    let noise: Vec<u8> = (0..format.bytes())
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .collect();
    for bytes in [noise, [0, 0x80, 0xff, 0x7f].repeat(20_000), vec![0; 80_000]] {
        let code = flac::encode(&bytes, &format, 16).unwrap();
        let mut file = Vec::new();
        flac::decode(&code, &format, &mut file).unwrap();
        assert_eq!(file, bytes);
        assert!(code.len() < bytes.len() + bytes.len() / 100 + 200);
    }
}

#[test]
fn opus_is_smaller_and_in_time() {
    for (channels, width, rate) in [
        (1, 2, 16_000),
        (2, 2, 48_000),
        (1, 3, 8000),
        (2, 2, 44_100),
        (1, 2, 22_050),
        (1, 3, 11_025),
        (1, 4, 16_000),
        (2, 4, 44_100),
    ] {
        let format = Samples {
            channels,
            width,
            rate,
            count: rate * 5 / 2 + 7,
        };
        let file = wav(&format);
        let sound = Sound::of(&file, SoundCodec::Opus(32), &Limits::default()).unwrap();
        assert_eq!(sound.code.name(), "Opus");
        let bytes = sound.code.bytes().len();
        assert!((5000..14_000).contains(&bytes), "{rate}: {bytes}");
        let back = sound.file().unwrap();
        assert_eq!(back.len(), file.len());
        let range = Wav::parse(&file).unwrap().range;
        assert_eq!(back[..range.start], file[..range.start]);
        assert_eq!(back[range.end..], file[range.end..]);
        // One sample too early or too late would leave less.
        let snr = snr(&file[range.clone()], &back[range], width);
        assert!(snr > 8.0, "{rate}: {snr:.1} dB");
    }
}

#[test]
fn what_opus_has_not_is_flac() {
    for (channels, rate) in [(1, 32_000), (1, 96_000), (1, 7000), (3, 48_000)] {
        let format = Samples {
            channels,
            width: 2,
            rate,
            count: 5000,
        };
        let file = wav(&format);
        let sound = Sound::of(&file, SoundCodec::Opus(32), &Limits::default()).unwrap();
        assert_eq!(sound.code.name(), "FLAC");
        assert_eq!(sound.file().unwrap(), file);
    }
}

#[test]
fn floating_point_samples_may_be_louder_than_full_scale_but_must_be_numbers() {
    let format = Samples {
        width: FLOAT,
        ..speech()
    };
    let quiet = samples(&format);
    let data: Vec<u8> = {
        let (numbers, _) = quiet.as_chunks();
        let louder = |number: &[u8; 4]| (f32::from_le_bytes(*number) * 3.0).to_le_bytes();
        numbers.iter().flat_map(louder).collect()
    };
    let code = |data: &[u8]| {
        let file = wav_of(&format, data);
        Sound::of(&file, SoundCodec::Opus(32), &Limits::default()).unwrap()
    };
    let sound = code(&data);
    assert_eq!(sound.code.name(), "Opus");
    let file = sound.file().unwrap();
    let range = Wav::parse(&file).unwrap().range;
    let snr = snr(&data, &file[range], FLOAT);
    assert!(snr > 8.0, "{snr:.1} dB");
    for odd in [f32::NAN, f32::INFINITY, -1e9] {
        let mut data = data.clone();
        data[400..404].copy_from_slice(&odd.to_le_bytes());
        let sound = code(&data);
        assert_eq!(sound.code.name(), "PCM", "{odd}");
        assert_eq!(sound.file().unwrap(), wav_of(&format, &data), "{odd}");
    }
}

#[test]
fn a_length_that_is_not_known_ends_with_the_file() {
    let (format, data) = (speech(), samples(&speech()));
    let head = [
        b"RIFF\xff\xff\xff\xffWAVE".to_vec(),
        chunk(b"fmt ", &format_chunk(&format)),
    ];
    let file = [&head.concat()[..], b"data\xff\xff\xff\xff", &data, b"x"].concat();
    let wav = Wav::parse(&file).unwrap();
    assert_eq!(wav.samples, format);
    let sound = Sound::of(&file, SoundCodec::Flac, &Limits::default()).unwrap();
    assert_eq!((&sound.tail[..], sound.file().unwrap()), (&b"x"[..], file));
}

#[test]
fn the_longer_name_of_a_format_is_read() {
    let format = speech();
    let mut long = format_chunk(&format);
    long[..2].copy_from_slice(&[0xfe, 0xff]);
    long.extend([22, 0, 16, 0, 4, 0, 0, 0, 1, 0]);
    long.extend([0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71]);
    let data = samples(&format);
    let file = |format: &[u8]| {
        let chunks = [chunk(b"fmt ", format), chunk(b"data", &data)].concat();
        [&b"RIFF\0\0\0\0WAVE"[..], &chunks].concat()
    };
    assert_eq!(Wav::parse(&file(&long)).unwrap().samples, format);
    // Floating-point numbers have 32 bits.
    long[24] = 3;
    assert_eq!(Wav::parse(&file(&long)), None);
    long[12..16].copy_from_slice(&[4, 0, 32, 0]);
    let wav = Wav::parse(&file(&long)).unwrap();
    assert_eq!((wav.samples.width, wav.samples.count), (FLOAT, 20_000));
    long[24] = 7;
    assert_eq!(Wav::parse(&file(&long)), None);
}

#[test]
fn other_files_are_not_coded() {
    let file = wav(&speech());
    let with = |at: usize, bytes: &[u8]| {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        Wav::parse(&file)
    };
    // The format begins behind a chunk of 7 bytes.
    let at = 12 + 16 + 8;
    for (name, found) in [
        ("half floats", with(at, &[3, 0])),
        ("mu-law", with(at, &[7, 0])),
        ("8 bits", with(at + 14, &[8, 0])),
        ("no channels", with(at + 2, &[0, 0])),
        ("gaps", with(at + 12, &[4, 0])),
        ("no rate", with(at + 4, &[0; 4])),
        ("AVI", with(8, b"AVI ")),
        ("no samples", Wav::parse(&file[..at + 24])),
        ("cut", Wav::parse(&file[..at + 4])),
    ] {
        assert_eq!(found, None, "{name}");
    }
}

#[test]
fn damaged_codes_are_errors() {
    let file = wav(&speech());
    let odd = Samples {
        width: FLOAT,
        ..speech()
    };
    for (codec, file) in [
        (SoundCodec::Flac, &file),
        (SoundCodec::Opus(24), &file),
        (SoundCodec::Flac, &wav(&odd)),
    ] {
        let sound = Sound::of(file, codec, &Limits::default()).unwrap();
        let with = |code: Vec<u8>, count| Sound {
            samples: Samples {
                count,
                ..sound.samples
            },
            code: match sound.code {
                Code::Flac(_) => Code::Flac(code),
                Code::Opus(_) => Code::Opus(code),
                Code::Pcm(_) => Code::Pcm(code),
            },
            ..sound.clone()
        };
        let code = sound.code.bytes();
        for count in [1, 20_000, 60_000, 2_000_000] {
            assert!(
                with(code.to_vec(), count).file().is_err(),
                "{codec} {count}"
            );
        }
        for cut in [0, 1, 3, code.len() / 2, code.len() - 1] {
            assert!(
                with(code[..cut].to_vec(), 40_000).file().is_err(),
                "{codec} {cut}"
            );
        }
        let longer = [code, b"\x01x"].concat();
        assert!(with(longer, 40_000).file().is_err(), "{codec}");
    }
}

#[test]
fn limits_are_named() {
    let file = wav(&speech());
    for (limits, says) in [
        (
            Limits {
                max_samples: 39_999,
                ..Limits::default()
            },
            "sound has 40000 samples, limit 39999",
        ),
        (
            Limits {
                max_code: 1000,
                ..Limits::default()
            },
            " bytes of code, limit 1000",
        ),
    ] {
        let error = Sound::of(&file, SoundCodec::Flac, &limits).unwrap_err();
        assert!(error.to_string().ends_with(says), "{error}");
    }
}

#[test]
fn names_go_both_ways() {
    for name in ["flac", "opus:6", "opus:24", "opus:510"] {
        assert_eq!(name.parse::<SoundCodec>().unwrap().to_string(), name);
    }
    for name in ["", "FLAC", "opus", "opus:5", "opus:511", "opus:x", "mp3"] {
        assert!(name.parse::<SoundCodec>().is_err(), "{name}");
    }
}

#[test]
fn a_sound_is_an_input_where_a_photo_would_be_one() {
    let file = wav(&speech());
    let text = Text::Base64 {
        url_safe: false,
        padded: true,
        escaped: false,
    };
    let letters = String::from_utf8(text.write(file.clone())).unwrap();
    let json = format!(
        r#"{{"messages":[{{"content":[{{"input_audio":{{"data":"{letters}","format":"wav"}}}}]}}]}}"#
    );
    let form = [b"--b\r\n\r\n", &file[..], b"\r\n--b--\r\n"].concat();
    let multipart = "multipart/form-data; boundary=b";
    for (preset, content_type, body, form) in [
        (Preset::Auto, None, file.clone(), Text::Raw),
        (Preset::Auto, Some(multipart), form, Text::Raw),
        (Preset::Openai, None, json.into_bytes(), text),
        (Preset::HuggingFace, None, letters.into_bytes(), text),
    ] {
        let request = slot::Request {
            body: &body,
            content_type,
            json_length: None,
        };
        let found = slot::find(&request, &preset.shape(), &Limits::default()).unwrap();
        let [input] = &found.inputs[..] else {
            panic!("{preset:?}: {} inputs", found.inputs.len())
        };
        assert_eq!(input.form, Form::Sound(form), "{preset:?}");
        let sound = form.read(&body[input.range.clone()]).unwrap();
        assert_eq!(sound, file, "{preset:?}");
    }
}
