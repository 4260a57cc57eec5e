//! The first inputs of every corpus, from real material of the tree.

use std::path::{Path, PathBuf};

use sidecod_wire::entropy::{self, Symbols, Tables};
use sidecod_wire::frame::{Frame, PictureSlot, Slot};
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{self, Color, MediaType, Picture};
use sidecod_wire::protobuf::field;
use sidecod_wire::slot::{Form, Length, Notation, Skeleton, Text};
use sidecod_wire::sound::{Sound, SoundCodec, SoundType};
use sidecod_wire::tensor::{self, Element, Layout, Tensor, Values};

/// Writes them under `root`, the root of the tree.
pub fn write(root: &Path) -> std::io::Result<()> {
    let corpus = Corpus(root.join("fuzz/corpus"));
    let code = codecs(root, &corpus)?;
    frames(&code, &corpus)?;
    sounds(&corpus)?;
    tensors(&corpus)?;
    bodies(&corpus)?;
    configurations(&corpus)
}

struct Corpus(PathBuf);

impl Corpus {
    fn put(&self, target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let folder = self.0.join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)
    }
}

fn picture() -> Picture {
    Picture {
        width: 6,
        height: 4,
        color: Color::Rgb,
        orientation: 1,
        rgb: (0..72).map(|value| value * 3).collect(),
    }
}

fn tensor(element: Element, layout: Layout, notation: tensor::Notation) -> Tensor {
    Tensor {
        width: 6,
        height: 4,
        color: Color::Rgb,
        element,
        layout,
        notation,
        values: Values::NAMED[1].1,
    }
}

/// Tables, manifests and codes; gives a code of nothing.
fn codecs(root: &Path, corpus: &Corpus) -> std::io::Result<Vec<u8>> {
    let bundle = root.join("onnx/codecs/photo-v0");
    let tables_bin = std::fs::read(bundle.join("tables.bin"))?;
    let tables = Tables::parse_all(&tables_bin).expect("tables").remove(0);
    corpus.put("tables", "photo-v0", &tables_bin)?;
    corpus.put("tables", "cut", &tables_bin[..tables_bin.len() / 2])?;
    let wide_bin = wide_tables();
    let wide = Tables::parse_all(&wide_bin).expect("tables").remove(0);
    corpus.put("tables", "wide", &wide_bin)?;
    for name in ["photo-v0", "photo"] {
        let file = root.join("onnx/codecs").join(name).join("manifest.json");
        corpus.put("manifest", name, &std::fs::read(file)?)?;
    }

    for (index, name, tables) in [(0, "noise", &tables), (1, "noise-wide", &wide)] {
        let mut symbols = Symbols::zeros(tables.channels(), 8, 8);
        let mut state = 7_u32;
        for symbol in &mut symbols.data {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *symbol = if state >> 28 == 0 {
                900
            } else {
                (state >> 30) as i16 - 1
            };
        }
        let code = entropy::encode(&symbols, tables).expect("a code");
        corpus.put("entropy", name, &[&[index, 7, 7][..], &code].concat())?;
    }
    let zeros = Symbols::zeros(tables.channels(), 8, 8);
    let code = entropy::encode(&zeros, &tables).expect("a code");
    corpus.put("entropy", "zeros", &[&[0, 7, 7][..], &code].concat())?;
    Ok(code)
}

/// Tables of the wide form: two channels, two levels of which the first has a table for each part.
fn wide_tables() -> Vec<u8> {
    let words = |words: &[i16]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let mut bytes = [&b"SCT3"[..], &[2, 0, 1, 0, 2, 1]].concat();
    for before in [&[][..], &[90]] {
        bytes.push(8);
        bytes.extend((0..232).map(|class| u8::from(class > 40)));
        for weights in [[120, -8, 130, 9, -30, 10], [100, 20, 100, 25, 30, 30]] {
            bytes.extend(words(&weights[..4]));
            bytes.extend(words(before));
            bytes.extend(words(&weights[4..]));
        }
    }
    for (tables, side) in [(8, 1000), (1, 3000)] {
        bytes.extend(words(&[-1, 3]));
        for _ in 0..tables {
            bytes.extend(words(&[side, 32_704 - 2 * side, side, 64]));
        }
    }
    bytes
}

fn frames(code: &[u8], corpus: &Corpus) -> std::io::Result<()> {
    let file = Form::File {
        media: MediaType::Png,
        text: Text::Raw,
    };
    let floats = tensor(Element::F32, Layout::Chw, tensor::Notation::Binary);
    let slot = |form| {
        Slot::Picture(PictureSlot {
            form,
            width: 6,
            height: 4,
            color: Color::Rgb,
            orientation: 1,
            max_side: 0,
            code: code.to_vec(),
        })
    };
    for (name, forms) in [
        ("photo", vec![file]),
        (
            "tensors",
            vec![
                Form::Tensor(floats),
                Form::Tensor(tensor(Element::U8, Layout::Hwc, tensor::Notation::Nested)),
            ],
        ),
    ] {
        let count = forms.len();
        let frame = Frame {
            bundle: *b"bundle00",
            quality: 0,
            content_type: Some("application/json".to_owned()),
            skeleton: Skeleton {
                bytes: b"{\"a\":[]}".to_vec(),
                offsets: vec![6; count],
                json_end: Some(8),
                lengths: vec![Length {
                    offset: 2,
                    after: 0,
                    notation: Notation::Decimal,
                    slots: 0..count,
                    plus: 3,
                }],
            },
            slots: forms.into_iter().map(slot).collect(),
        };
        let bytes = frame.encode();
        corpus.put("frame", name, &bytes[..bytes.len() - 4])?;
    }
    Ok(())
}

/// A WAV file of a fifth of a second, of whole numbers of 16 bits.
fn whole() -> Vec<u8> {
    sound(1, &numbers().flat_map(i16::to_le_bytes).collect::<Vec<_>>())
}

/// The same of floating-point numbers: whole ones divided.
fn floats(divisor: f32) -> Vec<u8> {
    let floats = numbers().map(|number| f32::from(number) / divisor);
    sound(3, &floats.flat_map(f32::to_le_bytes).collect::<Vec<_>>())
}

fn numbers() -> impl Iterator<Item = i16> {
    (0_i16..1600).map(|at| (at % 80 - 40) * (at % 300))
}

fn sound(kind: u8, samples: &[u8]) -> Vec<u8> {
    let width = (samples.len() / numbers().count()) as u8;
    let (rate, bytes) = (8000_u32, 8000 * u32::from(width));
    let format = [
        &[kind, 0, 1, 0][..],
        &rate.to_le_bytes(),
        &bytes.to_le_bytes(),
        &[width, 0, width * 8, 0],
    ]
    .concat();
    let length = (samples.len() as u32).to_le_bytes();
    let head = [&b"RIFF\xa4\x0c\0\0WAVEfmt \x10\0\0\0"[..], &format];
    [&head.concat(), &b"data"[..], &length, samples].concat()
}

fn sounds(corpus: &Corpus) -> std::io::Result<()> {
    for (name, codec, file) in [
        ("flac", SoundCodec::Flac, whole()),
        ("opus", SoundCodec::Opus(16), whole()),
        ("float", SoundCodec::Flac, floats(32_768.0)),
        ("pcm", SoundCodec::Flac, floats(32_767.0)),
    ] {
        let text = Text::Raw;
        let sound = Sound::of(&file, codec, &Limits::default()).expect("a sound");
        let frame = Frame {
            bundle: *b"bundle00",
            quality: 0,
            content_type: Some(SoundType::Wav.mime().to_owned()),
            skeleton: Skeleton {
                offsets: vec![0],
                ..Skeleton::default()
            },
            slots: vec![Slot::Sound { text, sound }],
        };
        let bytes = frame.encode();
        corpus.put("frame", name, &bytes[..bytes.len() - 4])?;
    }
    Ok(())
}

fn tensors(corpus: &Corpus) -> std::io::Result<()> {
    let picture = picture();
    for (name, kind) in [
        ("binary", 0b00_0000),
        ("half", 0b00_0100),
        ("flat", 0b01_1000),
        ("nested", 0b10_1010),
    ] {
        let notation = [
            tensor::Notation::Binary,
            tensor::Notation::Flat,
            tensor::Notation::Nested,
        ][kind >> 4];
        let tensor = tensor(
            [Element::U8, Element::F16, Element::F32][(kind >> 2 & 3) % 3],
            [Layout::Chw, Layout::Hwc][kind >> 1 & 1],
            notation,
        );
        let numbers = tensor.write(&picture);
        corpus.put(
            "tensor",
            name,
            &[&[5, 3, kind as u8, 1][..], &numbers].concat(),
        )?;
        corpus.put("tensor", &format!("{name}-alone"), &numbers)?;
    }
    Ok(())
}

fn bodies(corpus: &Corpus) -> std::io::Result<()> {
    let picture = picture();
    let png = media::encode(&picture, MediaType::Png).expect("a PNG");
    let jpeg = media::encode(&picture, MediaType::Jpeg).expect("a JPEG");
    let base64 = String::from_utf8(
        Text::Base64 {
            escaped: false,
            url_safe: false,
            padded: true,
        }
        .write(png.clone()),
    )
    .expect("ASCII");
    let form = [
        b"--b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n5\r\n--b\r\nContent-Disposition: form-data; \
          name=\"i\"; filename=\"x\"\r\nContent-Type: image/png\r\n\r\n".as_slice(),
        &png,
        b"\r\n--b--\r\n",
    ]
    .concat();
    let binary_tensor = tensor(Element::U8, Layout::Hwc, tensor::Notation::Binary).write(&picture);
    let oip_json = r#"{"inputs":[{"name":"i","datatype":"UINT8","shape":[1,4,6,3],"parameters":{"binary_data_size":72}}]}"#;
    let oip = [
        oip_json.as_bytes(),
        &vec![b' '; oip_json.len() % 2],
        &binary_tensor,
    ]
    .concat();
    let half = (oip_json.len().div_ceil(2)) as u8;
    for (name, head, body) in [
        ("png", [0, 1, 0], png.clone()),
        ("jpeg", [0, 1, 0], jpeg),
        ("wav", [0, 0, 0], whole()),
        ("form", [0, 4, 0], form),
        ("base64", [1, 3, 0], base64.clone().into_bytes()),
        ("tf", [2, 2, 0], format!(r#"{{"instances":[{{"b64":"{base64}"}}]}}"#).into_bytes()),
        ("tf-numbers", [2, 2, 0], br#"{"instances":[[[[1,2,3],[4,5,6]],[[7,8,9],[0,0,0]]]]}"#.to_vec()),
        ("openai", [3, 2, 0], format!(r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{base64}"}}}}]}}]}}"#).into_bytes()),
        ("ollama", [4, 2, 0], format!(r#"{{"model":"m","images":["{base64}"]}}"#).into_bytes()),
        ("roboflow", [5, 2, 0], format!(r#"{{"image":{{"type":"base64","value":"{base64}"}}}}"#).into_bytes()),
        ("hugging-face", [6, 2, 0], format!(r#"{{"inputs":"{base64}"}}"#).into_bytes()),
        ("oip", [7, 3, half], oip),
        ("oip-json", [7, 2, 0], br#"{"inputs":[{"name":"i","datatype":"UINT8","shape":[1,2,2,3],"data":[1,2,3,4,5,6,7,8,9,0,0,0]}]}"#.to_vec()),
        ("grpc-raw", [7, 6, 0], call(&[input("UINT8", b"\x01\x04\x06\x03", b""), field(7, &binary_tensor)])),
        ("grpc-file", [7, 6, 0], call(&[input("BYTES", b"\x01", &field(5, &field(8, &png)))])),
        ("json", [8, 2, 0], format!(r#"{{"a":[{{"x":"{base64}"}}]}}"#).into_bytes()),
        ("tensor", [9, 3, 0], vec![7; 48]),
    ] {
        corpus.put("slots", name, &[&head[..], &body].concat())?;
    }
    Ok(())
}

/// A call of `ModelInfer`.
fn call(fields: &[Vec<u8>]) -> Vec<u8> {
    let message = fields.concat();
    [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
}

fn input(datatype: &str, shape: &[u8], rest: &[u8]) -> Vec<u8> {
    let parts = [
        field(2, datatype.as_bytes()),
        field(3, shape),
        rest.to_vec(),
    ];
    field(5, &parts.concat())
}

fn configurations(corpus: &Corpus) -> std::io::Result<()> {
    corpus.put("config", "whole", b"listen = [\"127.0.0.1:7000\"]\nurl = \"http://edge:7100/base\"\nshape = \"oip\"\n\
        [limits]\nmax_side = 10\n[server]\ndrain_ms = 5\n[[upstream]]\nname = \"a\"\nurl = \"http://[::1]:8500\"\n\0server.max_streams=7\nurl=http://b\n")?;
    corpus.put(
        "config",
        "broken",
        b"listen = [\"127.0.0.1:99999\"]\nurl = \"ftp://x\"\n[limits\n\0a.b.c=[1,{x=2}]\n=\n.=.\n",
    )
}
