//! Everything in `wire` that reads bytes from outside: an error is a good outcome, a panic is not,
//! and what was read must survive being written and read again.

use std::sync::OnceLock;

use sidecod_wire::bundle::Manifest;
use sidecod_wire::entropy::{self, Symbols, Tables};
use sidecod_wire::frame::{Frame, Slot};
use sidecod_wire::limits::Limits;
use sidecod_wire::media::Color;
use sidecod_wire::slot::{self, Preset, Tensors};
use sidecod_wire::tensor::{self, Element, Layout, Notation, Tensor, Values};

/// Tables of each form.
const TABLES: [&[u8]; 2] = [
    include_bytes!("../../onnx/codecs/photo-v0/tables.bin"),
    include_bytes!("../corpus/tables/wide"),
];

const PRESETS: [Preset; 10] = [
    Preset::Auto,
    Preset::Base64,
    Preset::TfServing,
    Preset::Openai,
    Preset::Ollama,
    Preset::Roboflow,
    Preset::HuggingFace,
    Preset::Oip,
    Preset::Json,
    Preset::Tensor,
];

const CONTENT_TYPES: [Option<&str>; 7] = [
    None,
    Some("image/jpeg"),
    Some("application/json"),
    Some("application/octet-stream"),
    Some("multipart/form-data; boundary=b"),
    Some("multipart/form-data; boundary=\"b c\"; charset=utf-8"),
    Some("application/grpc"),
];

/// Small, so that a run tries many inputs.
fn limits() -> Limits {
    Limits {
        max_side: 256,
        max_pixels: 128 * 128,
        max_samples: 1 << 12,
        max_slots: 8,
        max_skeleton: 1 << 14,
        max_code: 1 << 14,
    }
}

/// A frame without its checksum, which would keep everything behind it from being reached.
pub fn frame(data: &[u8]) {
    let _ = Frame::decode(data, &limits());
    let sealed = [data, &crc32c::crc32c(data).to_le_bytes()].concat();
    let Ok(frame) = Frame::decode(&sealed, &limits()) else {
        return;
    };
    let written = frame.encode();
    let again = Frame::decode(&written, &limits());
    let again = again.expect("a frame that was decoded is one when it is written again");
    assert_eq!(again.encode(), written);
    for slot in &frame.slots {
        if let Slot::Sound { sound, .. } = slot
            && let Ok(file) = sound.file()
        {
            let around = sound.head.len() + sound.tail.len();
            assert_eq!(file.len() as u64, around as u64 + sound.samples.bytes());
        }
    }
    let parts = vec![b"part".to_vec(); frame.slots.len()];
    let filled = slot::fill(&frame.skeleton, &parts);
    assert!(filled.body.len() >= frame.skeleton.bytes.len() + 4 * parts.len());
}

/// Three bytes for the shape, then a code.
pub fn entropy(data: &[u8]) {
    let [quality, height, width, code @ ..] = data else {
        return;
    };
    let sets = tables_of_the_tree();
    let tables = &sets[usize::from(*quality) % sets.len()];
    let (height, width) = (usize::from(*height % 24) + 1, usize::from(*width % 24) + 1);
    let Ok(symbols) = entropy::decode(code, tables.channels(), height, width, tables) else {
        return;
    };
    let written = entropy::encode(&symbols, tables).expect("symbols that were decoded");
    let again = entropy::decode(&written, tables.channels(), height, width, tables);
    assert_eq!(again.expect("what was just written"), symbols);
}

fn tables_of_the_tree() -> &'static [Tables] {
    static SETS: OnceLock<Vec<Tables>> = OnceLock::new();
    let parse = |file| Tables::parse_all(file).expect("the tables of the tree");
    SETS.get_or_init(|| TABLES.into_iter().flat_map(parse).collect())
}

/// Three bytes for preset, content-type and the length of the JSON, then a body.
pub fn slots(data: &[u8]) {
    let [preset, content_type, json_length, body @ ..] = data else {
        return;
    };
    let preset = PRESETS[usize::from(*preset) % PRESETS.len()];
    let mut shape = preset.shape();
    if matches!(preset, Preset::Json) {
        shape.pointers = vec!["/**/x".parse().expect("a pointer")];
    }
    if matches!(preset, Preset::Tensor) {
        shape.tensors = Some(Tensors {
            body: Some((Element::U8, vec![4, 4, 3])),
            ..Tensors::default()
        });
    }
    let request = slot::Request {
        body,
        content_type: CONTENT_TYPES[usize::from(*content_type) % CONTENT_TYPES.len()],
        json_length: (*json_length > 0).then(|| usize::from(*json_length) * 2),
    };
    let Ok(found) = slot::find(&request, &shape, &limits()) else {
        return;
    };
    let mut end = 0;
    let mut parts = Vec::new();
    for input in &found.inputs {
        assert!(input.range.start >= end && input.range.end <= body.len());
        end = input.range.end;
        let bytes = &body[input.range.clone()];
        parts.push(bytes.to_vec());
        if let Ok(picture) = input.form.read(bytes, &limits()) {
            let pixels = picture.width as usize * picture.height as usize;
            assert_eq!(picture.rgb.len(), 3 * pixels);
            let written = input.form.write(&picture);
            if let (Ok(written), true) = (written, picture.orientation == 1) {
                let again = input.form.read(&written, &limits());
                let again = again.expect("a picture that was just written");
                assert_eq!((again.width, again.height), (picture.width, picture.height));
            }
        }
    }
    let filled = slot::fill(&slot::cut(body, &found), &parts);
    // Elsewhere a length may be written in several ways.
    if found.measures.is_empty() || request.content_type.is_some_and(slot::grpc::is) {
        assert_eq!(filled.body, body);
    }
}

/// A manifest.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else {
        return;
    };
    for (index, quality) in manifest.qualities.iter().enumerate() {
        assert!(
            manifest
                .quality(&quality.name)
                .is_some_and(|first| first <= index)
        );
        if manifest.channels <= 64 {
            let latent = vec![0.5; manifest.channels * 4];
            let symbols = manifest.quantize(index, &latent, 2, 2);
            assert_eq!(symbols.data.len(), latent.len());
        }
    }
    for (width, height) in [(1, 1), (3, 1000), (16_384, 1)] {
        let (rows, columns) = manifest.latent_size(width, height);
        assert!(rows >= 1 && columns >= 1);
    }
    for file in manifest.files.keys() {
        let _ = manifest.verify(file, data);
    }
}

/// The entropy coder's tables.
pub fn tables(data: &[u8]) {
    let Ok(sets) = Tables::parse_all(data) else {
        return;
    };
    for tables in sets {
        if tables.channels() > 16 {
            continue;
        }
        let mut symbols = Symbols::zeros(tables.channels(), 3, 3);
        for (at, symbol) in symbols.data.iter_mut().enumerate() {
            *symbol = (at as i16 % 5 - 2) * (at as i16 % 3);
        }
        let written = entropy::encode(&symbols, &tables).expect("small symbols");
        let again = entropy::decode(&written, tables.channels(), 3, 3, &tables);
        assert_eq!(again.expect("what was just written"), symbols);
    }
}

/// Four bytes for what the tensor is, then its numbers.
pub fn tensor(data: &[u8]) {
    if let Some(dimensions) = tensor::nested_dimensions(data) {
        let _ = tensor::pictures(&dimensions, None, &limits());
    }
    let [width, height, kind, values, bytes @ ..] = data else {
        return;
    };
    let element = [Element::U8, Element::F16, Element::F32][usize::from(kind >> 2) % 3];
    let tensor = Tensor {
        width: u32::from(*width % 16) + 1,
        height: u32::from(*height % 16) + 1,
        color: [Color::Rgb, Color::Gray][usize::from(kind & 1)],
        layout: [Layout::Chw, Layout::Hwc][usize::from(kind >> 1 & 1)],
        element,
        notation: [Notation::Binary, Notation::Flat, Notation::Nested][usize::from(kind >> 4) % 3],
        // Bytes hold nothing but pixels as they are.
        values: match element {
            Element::U8 => Values::default(),
            _ => Values::NAMED[usize::from(*values) % Values::NAMED.len()].1,
        },
    };
    if let Ok(picture) = tensor.read(bytes, &limits()) {
        let again = tensor.read(&tensor.write(&picture), &limits());
        let again = again.expect("a tensor that was just written");
        assert_eq!(again.rgb, picture.rgb);
    }
}
