use super::*;
use crate::media::{self, Color, MediaType, Picture};
use crate::tensor::{Element, Layout, Values};
use proptest::prelude::*;

const PHOTO: &[u8] = b"\xff\xd8\xff\xe0 not a whole photo \r\n--but sniffed as one";

fn form(boundary: &str, parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (headers, data) in parts {
        body.extend_from_slice(format!("--{boundary}\r\n{headers}\r\n").as_bytes());
        body.extend_from_slice(data);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

fn search(
    content_type: Option<&str>,
    body: &[u8],
    shape: &Shape,
    limits: &Limits,
) -> Result<Found, SlotError> {
    let request = Request {
        body,
        content_type,
        json_length: None,
    };
    find(&request, shape, limits)
}

/// The bytes of the inputs in a body of the default shape.
fn found<'b>(content_type: &str, body: &'b [u8]) -> Result<Vec<&'b [u8]>, SlotError> {
    let found = search(
        Some(content_type),
        body,
        &Shape::default(),
        &Limits::default(),
    )?;
    Ok(found
        .inputs
        .iter()
        .map(|i| &body[i.range.clone()])
        .collect())
}

/// The texts of the inputs in a JSON body.
fn texts(preset: Preset, body: &str) -> Vec<&str> {
    let found = search(
        Some("application/json"),
        body.as_bytes(),
        &preset.shape(),
        &Limits::default(),
    );
    let found = found.unwrap_or_else(|error| panic!("{error}: {body}"));
    found
        .inputs
        .iter()
        .map(|i| &body[i.range.clone()])
        .collect()
}

fn standard() -> Text {
    Text::Base64 {
        url_safe: false,
        padded: true,
        escaped: false,
    }
}

fn base64(bytes: &[u8]) -> String {
    String::from_utf8(standard().write(bytes.to_vec())).unwrap()
}

fn picture(width: u32, height: u32, color: Color) -> Picture {
    let pixels = (0..width * height).flat_map(|at| match color {
        Color::Rgb => [at as u8, (at * 7) as u8, 255 - at as u8],
        Color::Gray => [(at * 5) as u8; 3],
    });
    Picture {
        width,
        height,
        color,
        orientation: 1,
        rgb: pixels.collect(),
    }
}

#[test]
fn raw_body_is_one_slot_if_its_bytes_are_a_photo() {
    for content_type in [
        "image/jpeg",
        "application/octet-stream",
        "application/json",
        "",
    ] {
        assert_eq!(found(content_type, PHOTO).unwrap(), [PHOTO]);
    }
    let none = search(None, PHOTO, &Shape::default(), &Limits::default()).unwrap();
    assert_eq!(none.inputs.len(), 1);
    for body in [&b"no photo"[..], b""] {
        assert!(found("image/jpeg", body).unwrap().is_empty());
    }
}

#[test]
fn parts_with_photos_are_slots_and_others_are_not() {
    let body = form(
        "x",
        &[
            ("Content-Disposition: form-data; name=\"min\"\r\n", b"0.5"),
            (
                "Content-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\n",
                PHOTO,
            ),
            ("", b""),
            ("content-disposition: form-data; name=two\r\n", PHOTO),
        ],
    );
    for header in [
        "multipart/form-data; boundary=x",
        "Multipart/Form-Data; charset=utf-8; Boundary=\"x\"",
    ] {
        assert_eq!(found(header, &body).unwrap(), [PHOTO, PHOTO]);
    }
}

#[test]
fn a_part_that_declares_an_encoding_or_a_wrong_length_is_left_alone() {
    for header in [
        "Content-Length: 46\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "content-transfer-encoding: binary\r\n",
        "Content-Encoding: gzip\r\n",
    ] {
        let body = form("x", &[(header, PHOTO)]);
        assert!(
            found("multipart/form-data; boundary=x", &body)
                .unwrap()
                .is_empty()
        );
    }
}

#[test]
fn the_length_of_a_part_is_written_anew() {
    let header = format!("A: b\r\ncontent-length:  {}\r\n", PHOTO.len());
    let body = form("x", &[(&header, PHOTO), ("C: d\r\n", PHOTO)]);
    let shape = Shape::default();
    let content_type = Some("multipart/form-data; boundary=x");
    let found = search(content_type, &body, &shape, &Limits::default()).unwrap();
    let skeleton = cut(&body, &found);
    let filled = fill(&skeleton, &[b"1234567".to_vec(), b"89".to_vec()]);
    let expected = form(
        "x",
        &[
            ("A: b\r\ncontent-length:  7\r\n", b"1234567"),
            ("C: d\r\n", b"89"),
        ],
    );
    assert_eq!(filled.body, expected);
}

#[test]
fn broken_multipart_is_an_error() {
    let whole = form("x", &[("A: b\r\n", PHOTO)]);
    for (content_type, body) in [
        ("multipart/form-data", &whole[..]),
        ("multipart/form-data; boundary=\"x", &whole[..]),
        ("multipart/form-data; boundary=", &whole[..]),
        ("multipart/form-data; boundary=y", &whole[..]),
        ("multipart/form-data; boundary=x", &whole[..whole.len() - 9]),
        ("multipart/form-data; boundary=x", b"--x\r\nA: b"),
        ("multipart/form-data; boundary=x", b"--x junk"),
        ("multipart/form-data; boundary=x", b""),
    ] {
        assert!(
            found(content_type, body).is_err(),
            "{content_type} {body:?}"
        );
    }
}

#[test]
fn limits_hold() {
    let parts: Vec<(&str, &[u8])> = vec![("", PHOTO); 4];
    let body = form("x", &parts);
    let content_type = Some("multipart/form-data; boundary=x");
    let few = Limits {
        max_slots: 3,
        ..Limits::default()
    };
    let error = search(content_type, &body, &Shape::default(), &few).unwrap_err();
    assert_eq!(
        error.to_string(),
        "more than 3 inputs in one request, which is the limit"
    );
    let small = Limits {
        max_skeleton: 10,
        ..Limits::default()
    };
    let error = search(content_type, &body, &Shape::default(), &small).unwrap_err();
    assert!(matches!(error, SlotError::Skeleton { limit: 10, .. }));

    let image = base64(PHOTO);
    let json = format!(
        "{{\"images\":[{}]}}",
        vec![format!("\"{image}\""); 4].join(",")
    );
    let shape = Preset::Ollama.shape();
    assert!(search(None, json.as_bytes(), &shape, &few).is_err());
    let tensors = Shape {
        tensors: Some(Tensors::default()),
        ..Preset::Oip.shape()
    };
    let json = br#"{"inputs":[{"shape":[4000000000,3,1,1],"datatype":"UINT8","data":[1]}]}"#;
    let none = search(None, json, &tensors, &few).unwrap();
    assert!(none.inputs.is_empty());
}

#[test]
fn every_protocol_has_its_places() {
    let image = base64(PHOTO);
    let data = format!("data:image/jpeg;base64,{image}");
    for (preset, body, count) in [
        (
            Preset::TfServing,
            r#"{"instances": [{"b64": "IMAGE"}, {"image_bytes": {"b64": "IMAGE"}, "key": "b64"}]}"#,
            2,
        ),
        (
            Preset::TfServing,
            r#"{"signature_name":"x","inputs":{"image":{"b64":"IMAGE"},"k":NaN, "l":[-Infinity]}}"#,
            1,
        ),
        (
            Preset::TfServing,
            r#"{"instances": ["IMAGE"], "b64": "IMAGE"}"#,
            1,
        ),
        (
            Preset::Openai,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"IMAGE"},{"type":"image_url","image_url":{"url":"DATA","detail":"low"}}]}]}"#,
            1,
        ),
        (
            Preset::Openai,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"DATA"}]}]}"#,
            1,
        ),
        (
            Preset::Openai,
            r#"{"messages":[{"content":[{"image_url":{"url":"https://example.com/a.jpg"}},{"input_audio":{"data":"UklGRiQAAABXQVZF"}}]},{"content":"text"}]}"#,
            0,
        ),
        (
            Preset::Ollama,
            r#"{"model":"m","prompt":"?","images":["IMAGE"]}"#,
            1,
        ),
        (
            Preset::Ollama,
            r#"{"messages":[{"role":"user","content":"?","images":["IMAGE","IMAGE"]}]}"#,
            2,
        ),
        (
            Preset::Roboflow,
            r#"{"api_key":"K","image":{"type":"base64","value":"IMAGE"}}"#,
            1,
        ),
        (
            Preset::Roboflow,
            r#"{"image":[{"type":"base64","value":"IMAGE"},{"type":"url","value":"http://x"}]}"#,
            1,
        ),
        (Preset::Roboflow, "IMAGE", 1),
        (Preset::Base64, "IMAGE", 1),
        (
            Preset::HuggingFace,
            r#"{"inputs":"IMAGE","parameters":{},"image":"IMAGE"}"#,
            2,
        ),
        (
            Preset::HuggingFace,
            r#"{"inputs":"a text with \"quotes\""}"#,
            0,
        ),
        (Preset::Auto, r#"{"instances":[{"b64":"IMAGE"}]}"#, 0),
    ] {
        let body = body.replace("IMAGE", &image).replace("DATA", &data);
        let texts = texts(preset, &body);
        assert_eq!(texts, vec![&image[..]; count], "{preset:?} {body}");
    }
}

#[test]
fn sounds_are_told_and_left_where_they_are() {
    let wav = b"RIFF\x24\0\0\0WAVEfmt samples".as_slice();
    let flac = b"fLaC\0\0\0\x22samples".as_slice();
    let json = |letters: &str| {
        format!(
            r#"{{"messages":[{{"content":[{{"image_url":{{"url":"{}"}}}},{{"type":"input_audio","input_audio":{{"data":"{letters}","format":"wav"}}}}]}}]}}"#,
            base64(PHOTO)
        )
    };
    let parts = form("x", &[("", PHOTO), ("Content-Type: audio/flac\r\n", flac)]);
    for (preset, content_type, body, at, media, photos) in [
        (
            Preset::Auto,
            "audio/wav",
            wav.to_vec(),
            wav.to_vec(),
            "audio/wav",
            0,
        ),
        (
            Preset::Auto,
            "audio/mpeg",
            b"\xff\xfb\x90\x64x".to_vec(),
            b"\xff\xfb\x90\x64x".to_vec(),
            "audio/mpeg",
            0,
        ),
        (
            Preset::Auto,
            "multipart/form-data; boundary=x",
            parts,
            flac.to_vec(),
            "audio/flac",
            1,
        ),
        (
            Preset::Openai,
            "application/json",
            json(&base64(wav)).into_bytes(),
            base64(wav).into_bytes(),
            "audio/wav",
            1,
        ),
        (
            Preset::HuggingFace,
            "text/plain",
            base64(wav).into_bytes(),
            base64(wav).into_bytes(),
            "audio/wav",
            0,
        ),
    ] {
        let found = search(
            Some(content_type),
            &body,
            &preset.shape(),
            &Limits::default(),
        )
        .unwrap();
        let sounds: Vec<_> = found
            .sounds
            .iter()
            .map(|s| (&body[s.range.clone()], s.media.mime()))
            .collect();
        assert_eq!(sounds, [(&at[..], media)], "{preset:?}");
        assert_eq!(found.inputs.len(), photos, "{preset:?}");
        let skeleton = cut(&body, &found);
        let parts = vec![PHOTO.to_vec(); photos];
        if photos == 0 {
            assert_eq!(fill(&skeleton, &parts).body, body);
        }
    }
    for body in [
        &b"\xff\xff\xff\xff"[..],
        b"\xff\xfb\xfc",
        b"RIFFxxxxWEB",
        b"{}",
    ] {
        let found = search(None, body, &Shape::default(), &Limits::default()).unwrap();
        assert!(found.sounds.is_empty(), "{body:?}");
    }
}

#[test]
fn own_pointers_reach_any_place() {
    let image = base64(PHOTO);
    let body = format!(
        "{{\"a/b\":{{\"x\":[0,{{\"deep\":{{\"img\":\"{image}\"}}}}]}},\"n\\u0061me\":\"{image}\"}}"
    );
    for (pointer, count) in [
        ("/a~1b/x/1/deep/img", 1),
        ("/a~1b/*/*/*/img", 1),
        ("/**/img", 1),
        ("/**", 2),
        ("/name", 1),
        ("/a~1b/x/0/deep/img", 0),
        ("/img", 0),
    ] {
        let shape = Shape {
            pointers: vec![pointer.parse().unwrap()],
            ..Shape::default()
        };
        let found = search(None, body.as_bytes(), &shape, &Limits::default()).unwrap();
        assert_eq!(found.inputs.len(), count, "{pointer}");
    }
    for wrong in ["img", "", "/a~2", "/**/a/**/b/**"] {
        assert!(wrong.parse::<Pointer>().is_err(), "{wrong}");
    }
}

#[test]
fn deep_json_is_not_followed_without_end() {
    let body = format!("{}\"x\"{}", "[".repeat(100_000), "]".repeat(100_000));
    let shape = Shape {
        pointers: vec!["/**/x".parse().unwrap()],
        ..Shape::default()
    };
    if let Ok(found) = search(None, body.as_bytes(), &shape, &Limits::default()) {
        assert!(found.inputs.is_empty());
    }
    for broken in [
        "{\"a\":",
        "[1,]",
        "nul",
        "{\"a\":Nan}",
        "\"\\",
        "[\"a\",NaN\"]",
        "\u{fffd}",
    ] {
        assert!(
            search(None, broken.as_bytes(), &shape, &Limits::default()).is_err(),
            "{broken}"
        );
    }
}

#[test]
fn base64_is_written_as_it_was_read() {
    let file = [PHOTO, &[0xfb, 0xff, 0xfe, 0xff, 0xff]].concat();
    for url_safe in [false, true] {
        for padded in [false, true] {
            for escaped in [false, true] {
                let text = Text::Base64 {
                    url_safe,
                    padded,
                    escaped: escaped && !url_safe,
                };
                let written = text.write(file.clone());
                assert_eq!(text::sniff(&written), Some(text), "{written:?}");
                assert_eq!(text.read(&written).unwrap(), &file[..]);
                assert!(Form::of(&written, text).is_some());
            }
        }
    }
    for wrong in [
        "",
        "/9j/ 4AAQ",
        "/9j/\\n",
        "+_",
        "====",
        "https://x",
        "/\\/",
    ] {
        assert_eq!(text::sniff(wrong.as_bytes()), None, "{wrong}");
    }
    for id in 0..=255 {
        if let Some(text) = Text::from_id(id) {
            assert_eq!(text.id(), id);
        }
    }
}

/// A request of the Open Inference Protocol with binary data.
fn binary(shape: &Shape, json: &str, data: &[u8]) -> (Vec<u8>, Result<Found, SlotError>) {
    let body = [json.as_bytes(), data].concat();
    let request = Request {
        body: &body,
        content_type: None,
        json_length: Some(json.len()),
    };
    let found = find(&request, shape, &Limits::default());
    (body, found)
}

fn oip(name: &str) -> Shape {
    Shape {
        tensors: Some(Tensors {
            values: Values::named(name).unwrap(),
            ..Tensors::default()
        }),
        ..Preset::Oip.shape()
    }
}

#[test]
fn files_in_binary_data_get_their_lengths_anew() {
    let text = b"no photo";
    let mut data = Vec::new();
    for element in [PHOTO, text, PHOTO] {
        data.extend((element.len() as u32).to_le_bytes());
        data.extend(element);
    }
    let json = |size: usize| {
        format!(
            r#"{{"id":"x", "inputs":[{{"name":"a","shape":[3],"datatype":"BYTES","parameters":{{"binary_data_size": {size} }}}},{{"name":"b","shape":[1],"datatype":"INT32","parameters":{{"binary_data_size":4}}}}]}}"#
        )
    };
    let head = json(data.len());
    let (body, found) = binary(
        &Preset::Oip.shape(),
        &head,
        &[&data[..], &[1, 2, 3, 4]].concat(),
    );
    let found = found.unwrap();
    assert_eq!(found.inputs.len(), 2);
    let skeleton = cut(&body, &found);
    let same = fill(&skeleton, &[PHOTO.to_vec(), PHOTO.to_vec()]);
    assert_eq!((same.body, same.json_length), (body, Some(head.len())));

    // Other files: every number that counts them follows.
    let files = [vec![b'x'; 2000], b"y".to_vec()];
    let filled = fill(&skeleton, &files);
    let mut data = Vec::new();
    for element in [&files[0][..], text, &files[1]] {
        data.extend((element.len() as u32).to_le_bytes());
        data.extend(element);
    }
    let head = json(data.len());
    assert_eq!(filled.json_length, Some(head.len()));
    assert_eq!(
        filled.body,
        [head.as_bytes(), &data, &[1, 2, 3, 4]].concat()
    );
}

#[test]
fn binary_tensors_are_pictures_and_keep_their_length() {
    let values = Values::named("imagenet").unwrap();
    for (element, name) in [
        (Element::F32, "FP32"),
        (Element::F16, "FP16"),
        (Element::U8, "UINT8"),
    ] {
        for (layout, dims) in [
            (Layout::Chw, "2,3,5,7"),
            (Layout::Hwc, "2,5,7,3"),
            (Layout::Hwc, "2,5,7,1"),
        ] {
            let color = if dims.ends_with('1') {
                Color::Gray
            } else {
                Color::Rgb
            };
            let tensor = crate::tensor::Tensor {
                width: 7,
                height: 5,
                color,
                element,
                layout,
                notation: crate::tensor::Notation::Binary,
                values: if element == Element::U8 {
                    Values::default()
                } else {
                    values
                },
            };
            let one = tensor.write(&picture(7, 5, color));
            let data = [&one[..], &one].concat();
            let json = format!(
                r#"{{"inputs":[{{"name":"x","shape":[{dims}],"datatype":"{name}","parameters":{{"binary_data_size":{}}}}}]}}"#,
                data.len()
            );
            let (body, found) = binary(&oip("imagenet"), &json, &data);
            let found = found.unwrap();
            assert_eq!(found.inputs.len(), 2, "{name} {dims}");
            for input in &found.inputs {
                assert_eq!(input.form, Form::Tensor(tensor));
                let read = input
                    .form
                    .read(&body[input.range.clone()], &Limits::default())
                    .unwrap();
                assert_eq!(read, picture(7, 5, color), "{name} {dims}");
            }
            // Without knowing the values only bytes are pixels.
            let (_, unknown) = binary(&Preset::Oip.shape(), &json, &data);
            let expected = if element == Element::U8 { 2 } else { 0 };
            assert_eq!(unknown.unwrap().inputs.len(), expected);
        }
    }
}

#[test]
fn json_tensors_are_pictures() {
    let picture = picture(4, 2, Color::Rgb);
    let numbers = |element| crate::tensor::Tensor {
        width: 4,
        height: 2,
        color: Color::Rgb,
        element,
        layout: Layout::Chw,
        notation: crate::tensor::Notation::Nested,
        values: Values::named("lite").unwrap(),
    };
    let nested = String::from_utf8(numbers(Element::F32).write(&picture)).unwrap();
    assert!(
        nested.starts_with("[[[-0.9921875,") && nested.ends_with("]]]"),
        "{nested}"
    );
    let flat = nested.replace(['[', ']'], "").replace(',', ", ");
    for (data, count) in [
        (format!("[{nested}]"), 1),
        (format!("[{flat}]"), 1),
        (format!("[{flat}, {flat}]"), 2),
        (format!(" [{nested} , {nested}]"), 2),
        (format!("[{flat}, {flat}, {flat}]"), 0),
    ] {
        let batch = count.max(1);
        let body = format!(
            r#"{{"inputs": [{{"data": {data}, "name": "x", "shape": [{batch}, 3, 2, 4], "datatype": "FP32"}}]}}"#
        );
        let found = search(None, body.as_bytes(), &oip("lite"), &Limits::default()).unwrap();
        assert_eq!(found.inputs.len(), count, "{body}");
        for input in &found.inputs {
            let bytes = &body.as_bytes()[input.range.clone()];
            let read = input.form.read(bytes, &Limits::default()).unwrap();
            assert_eq!(read, picture);
            let written = String::from_utf8(input.form.write(&read).unwrap()).unwrap();
            assert_eq!(
                written.replace(' ', ""),
                String::from_utf8_lossy(bytes).replace(' ', "")
            );
        }
    }
}

#[test]
fn nested_arrays_at_a_pointer_are_pictures() {
    let values = Values::named("zero-to-one").unwrap();
    let shape = Shape {
        tensors: Some(Tensors {
            values,
            ..Tensors::default()
        }),
        ..Preset::TfServing.shape()
    };
    let picture = picture(4, 5, Color::Rgb);
    let tensor = crate::tensor::Tensor {
        width: 4,
        height: 5,
        color: Color::Rgb,
        element: Element::F32,
        layout: Layout::Hwc,
        notation: crate::tensor::Notation::Nested,
        values,
    };
    let one = String::from_utf8(tensor.write(&picture)).unwrap();
    for (body, count) in [
        (format!(r#"{{"instances": [{one}, {one}]}}"#), 2),
        (
            format!(r#"{{"instances": [{{"image": {one}, "k": 1}}]}}"#),
            1,
        ),
        (format!(r#"{{"inputs": {{"image": [{one}]}}}}"#), 1),
        (r#"{"instances": [[1.0, 2.0], [3, 4]]}"#.to_owned(), 0),
    ] {
        let found = search(None, body.as_bytes(), &shape, &Limits::default()).unwrap();
        assert_eq!(found.inputs.len(), count, "{body}");
        for input in &found.inputs {
            let read = input
                .form
                .read(&body.as_bytes()[input.range.clone()], &Limits::default());
            assert_eq!(read.unwrap(), picture);
        }
    }
}

#[test]
fn inference_requests_that_do_not_add_up_are_errors() {
    for (json, data) in [
        (
            r#"{"inputs":[{"shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}"#,
            &b"\x01\0\0\0"[..],
        ),
        (
            r#"{"inputs":[{"shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":4}}]}"#,
            b"\x01\0\0\0",
        ),
        (
            r#"{"inputs":[{"shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":3}}]}"#,
            b"\x01\0\0",
        ),
        (
            r#"{"inputs":[{"shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":-1}}]}"#,
            b"",
        ),
        (
            r#"{"inputs":[{"shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}"#,
            b"12345",
        ),
        (r#"{"inputs":{}}"#, b""),
        (r"{}", b""),
        ("", b"123"),
    ] {
        let json_length = if json.is_empty() { 4 } else { json.len() };
        let body = [json.as_bytes(), data].concat();
        let request = Request {
            body: &body,
            content_type: None,
            json_length: Some(json_length),
        };
        assert!(
            find(&request, &oip("imagenet"), &Limits::default()).is_err(),
            "{json}"
        );
    }
}

#[test]
fn a_body_that_is_only_a_tensor_is_what_the_route_says() {
    let data = vec![7; 2 * 3 * 4 * 5];
    let shape = Shape {
        tensors: Some(Tensors {
            body: Some((Element::U8, vec![2, 3, 4, 5])),
            ..Tensors::default()
        }),
        ..Shape::default()
    };
    let found = search(None, &data, &shape, &Limits::default()).unwrap();
    assert_eq!(found.inputs.len(), 2);
    assert!(
        search(None, &data[1..], &shape, &Limits::default())
            .unwrap()
            .inputs
            .is_empty()
    );
    let request = Request {
        body: &data,
        content_type: None,
        json_length: Some(0),
    };
    let shape = Shape {
        inference: true,
        ..shape
    };
    assert_eq!(
        find(&request, &shape, &Limits::default())
            .unwrap()
            .inputs
            .len(),
        2
    );
}

#[test]
fn photos_in_base64_are_read_and_written() {
    let picture = picture(9, 6, Color::Rgb);
    let file = media::encode(&picture, MediaType::Png).unwrap();
    let body = format!("{{\"images\": [\"{}\"]}}", base64(&file));
    let shape = Preset::Ollama.shape();
    let found = search(None, body.as_bytes(), &shape, &Limits::default()).unwrap();
    let input = &found.inputs[0];
    let read = input
        .form
        .read(&body.as_bytes()[input.range.clone()], &Limits::default());
    assert_eq!(read.unwrap(), picture);
    let filled = fill(
        &cut(body.as_bytes(), &found),
        &[input.form.write(&picture).unwrap()],
    );
    assert_eq!(filled.body, body.as_bytes());

    let bmp = input
        .form
        .written_as(MediaType::Bmp, 1)
        .write(&picture)
        .unwrap();
    assert!(bmp.starts_with(b"Qk"), "the base64 of BM");
    assert_eq!(input.form.written_as(MediaType::Bmp, 6), input.form);
}

proptest! {
    #[test]
    fn cut_and_fill_give_the_body_back(
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..20)), 0..5),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut body = Vec::new();
        let mut found = Found::default();
        for (between, input) in &pieces {
            body.extend_from_slice(between);
            // A length right before the input that it counts, as in binary data.
            let start = body.len();
            body.extend_from_slice(&(input.len() as u32).to_le_bytes());
            let index = found.inputs.len();
            found.measures.push(Measure {
                range: start..start + 4,
                notation: Notation::U32,
                inputs: index..index + 1,
                plus: 0,
            });
            let range = body.len()..body.len() + input.len();
            found.inputs.push(Input {
                range,
                form: Form::File { media: MediaType::Png, text: Text::Raw },
            });
            body.extend_from_slice(input);
        }
        body.extend_from_slice(&tail);
        let parts: Vec<_> = found.inputs.iter().map(|input| body[input.range.clone()].to_vec()).collect();
        prop_assert_eq!(fill(&cut(&body, &found), &parts).body, body);
    }

    #[test]
    fn a_form_is_found_again(
        parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..6),
    ) {
        let data: Vec<Vec<u8>> = parts
            .iter()
            .map(|(photo, bytes)| if *photo { [PHOTO, bytes].concat() } else { [b"text", &bytes[..]].concat() })
            .collect();
        let listed: Vec<(&str, &[u8])> = data.iter().map(|d| ("Content-Disposition: form-data\r\n", &d[..])).collect();
        let body = form("b0undary-not-in-data", &listed);
        let slots = found("multipart/form-data; boundary=b0undary-not-in-data", &body).unwrap();
        let photos: Vec<&[u8]> = parts.iter().zip(&data).filter(|(p, _)| p.0).map(|(_, d)| &d[..]).collect();
        prop_assert_eq!(slots, photos);
    }

    #[test]
    fn any_bytes_give_ranges_inside_the_body(mut body in prop::collection::vec(prop_oneof![Just(b'-'), Just(b'x'), Just(b'\r'), Just(b'\n'), Just(0xff), Just(0xd8)], 0..200)) {
        body.splice(0..0, *b"--x\r\n");
        if let Ok(found) = search(Some("multipart/form-data; boundary=x"), &body, &Shape::default(), &Limits::default()) {
            check(&body, &found);
        }
    }

    #[test]
    fn any_inference_request_gives_ranges_inside_the_body(
        at in 0_usize..400,
        junk in prop::collection::vec(any::<u8>(), 0..4),
        json_length in prop::option::of(0_usize..300),
    ) {
        let image = base64(PHOTO);
        let mut body = format!(
            r#"{{"inputs":[{{"name":"a","shape":[1,3,2,2],"datatype":"FP32","data":[0.1,0.2,0.3,0,0,0,0,0,0,0,0,0.1]}},{{"name":"b","shape":[1],"datatype":"BYTES","data":["{image}"]}},{{"name":"c","shape":[1],"datatype":"BYTES","parameters":{{"binary_data_size":8}}}}]}}"#
        ).into_bytes();
        let end = body.len();
        body.extend([4, 0, 0, 0, 0xff, 0xd8, 0xff, 0xe0]);
        let at = at.min(body.len());
        body.splice(at..at, junk);
        let request = Request { body: &body, content_type: None, json_length: json_length.or(Some(end)) };
        for shape in [oip("zero-to-one"), Preset::TfServing.shape(), Preset::HuggingFace.shape()] {
            if let Ok(found) = find(&request, &shape, &Limits::default()) {
                check(&body, &found);
            }
        }
    }
}

/// Inputs and measures ascend, lie in the body and do not overlap, and filling gives the body back
/// where the inputs are as long as the measures say.
fn check(body: &[u8], found: &Found) {
    let mut ranges: Vec<_> = found
        .inputs
        .iter()
        .map(|input| input.range.clone())
        .collect();
    ranges.extend(found.measures.iter().map(|measure| measure.range.clone()));
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut last = 0;
    for range in ranges {
        assert!(last <= range.start && range.start <= range.end && range.end <= body.len());
        last = range.end;
    }
    let parts: Vec<_> = found
        .inputs
        .iter()
        .map(|i| body[i.range.clone()].to_vec())
        .collect();
    assert_eq!(fill(&cut(body, found), &parts).body, body);
}
