//! The built programs between an app and a server that keeps what it gets: in every request shape,
//! all but the pixels of the inputs arrives as it was sent.

#![allow(clippy::expect_used)] // a test fails by panicking

#[path = "shapes/grpc.rs"]
mod grpc;
#[path = "shapes/sounds.rs"]
mod sounds;

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sidecod_bench::client::Client;
use sidecod_bench::stack::{Stack, workspace};
use sidecod_sidecar::body::full;
use sidecod_sidecar::listen::{self, ServerLimits};
use sidecod_sidecar::shutdown::Shutdown;
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{self, Color, MediaType, Picture};
use sidecod_wire::slot::{self, Found, Preset, Shape, Tensors, Text};
use sidecod_wire::tensor::{Element, Layout, Notation, Tensor, Values};
use tokio::net::TcpListener;

const JSON_LENGTH: &str = "inference-header-content-length";

/// The routes, one for each shape, and what the tests expect of them.
const ROUTES: &str = r#"route=[
    {name="auto", path="/auto"},
    {name="tf", path="/tf", shape="kserve-v1", tensor={values="zero-to-one"}},
    {name="chat", path="/chat", shape="openai"},
    {name="ollama", path="/ollama", shape="ollama"},
    {name="roboflow", path="/roboflow", shape="roboflow"},
    {name="hf", path="/hf", shape="hugging-face"},
    {name="own", path="/own", shape="json", pointers=["/a/*/b"]},
    {name="oip", path="/oip", shape="oip", tensor={layout="nchw", values="imagenet"}},
    {name="raw", path="/raw", shape="tensor", tensor={values="zero-to-255", datatype="UINT8", shape=[1,224,224,3]}},
    {name="bmp", path="/bmp", render="bmp"},
]"#;

/// What a server was asked.
type Asked = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A request and the shape that finds its inputs.
struct Case {
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    shape: Shape,
    inputs: usize,
}

async fn server() -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let asked = Asked::default();
    let seen = asked.clone();
    let service = listen::service(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            seen.lock().expect("the list").push((parts.headers, body));
            Response::new(full("{}"))
        }
    });
    tokio::spawn(async move {
        let (_trigger, shutdown) = Shutdown::new();
        listen::http1(listener, &ServerLimits::default(), service, shutdown).await;
    });
    (address, asked)
}

/// Both programs with these routes, and a server behind them.
async fn start(routes: &str) -> (Stack, Asked) {
    let (address, asked) = server().await;
    let upstream = format!("upstream=[{{name=\"default\", url=\"http://{address}\"}}]");
    let routes = routes.replace('\n', " ");
    let stack = Stack::start(&["--set", &routes], &["--set", &upstream]).await;
    (stack.expect("a stack"), asked)
}

fn photo(name: &str) -> Vec<u8> {
    std::fs::read(workspace().join("examples/photos").join(name)).expect("a photo of the examples")
}

fn base64(file: &[u8], url_safe: bool, escaped: bool) -> String {
    let text = Text::Base64 {
        url_safe,
        padded: !url_safe,
        escaped,
    };
    String::from_utf8(text.write(file.to_vec())).expect("letters")
}

/// The middle 224x224 pixels of a photo.
fn crop(file: &[u8]) -> Picture {
    let whole = media::decode(file, &Limits::default()).expect("a photo");
    let (left, top) = ((whole.width - 224) / 2, (whole.height - 224) / 2);
    let rows = (top..top + 224).flat_map(|y| {
        let start = ((y * whole.width + left) * 3) as usize;
        whole.rgb[start..start + 224 * 3].iter().copied()
    });
    Picture {
        width: 224,
        height: 224,
        color: Color::Rgb,
        orientation: 1,
        rgb: rows.collect(),
    }
}

fn numbers(element: Element, layout: Layout, notation: Notation, name: &str) -> Vec<u8> {
    let picture = crop(&photo("goldfish.jpg"));
    let tensor = Tensor {
        width: 224,
        height: 224,
        color: Color::Rgb,
        element,
        layout,
        notation,
        values: Values::named(name).expect("a known name"),
    };
    tensor.write(&picture)
}

fn tensors(preset: Preset, layout: Option<Layout>, name: &str) -> Shape {
    Shape {
        tensors: Some(Tensors {
            layout,
            values: Values::named(name).expect("a known name"),
            body: None,
        }),
        ..preset.shape()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn json_cases() -> Vec<Case> {
    let json = |path, shape: Shape, inputs, body: String| Case {
        path,
        headers: vec![("content-type", "application/json".to_owned())],
        body: body.into_bytes(),
        shape,
        inputs,
    };
    let (one, two) = (photo("goldfish.jpg"), photo("dam.jpg"));
    let (a, b) = (base64(&one, false, false), base64(&two, false, true));
    let nested = numbers(Element::F32, Layout::Hwc, Notation::Nested, "zero-to-one");
    let nested = String::from_utf8(nested).expect("text");
    let flat = numbers(Element::F32, Layout::Chw, Notation::Flat, "imagenet");
    let flat = String::from_utf8(flat).expect("text");
    let oip = tensors(Preset::Oip, Some(Layout::Chw), "imagenet");
    vec![
        json(
            "/tf",
            Preset::TfServing.shape(),
            2,
            format!(
                "{{\"signature_name\" : \"x\",\n \"instances\":[ {{\"b64\":\"{a}\"}}, {{\"k\":{{\"b64\": \"{b}\"}},\"n\":NaN}}]}}"
            ),
        ),
        json(
            "/tf",
            tensors(Preset::TfServing, None, "zero-to-one"),
            1,
            format!("{{\"instances\": [{nested}]}}"),
        ),
        json(
            "/chat",
            Preset::Openai.shape(),
            2,
            format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"What? 你好 \u0041"}},{{"type":"image_url","image_url":{{"url":"data:image/jpeg;base64,{a}","detail":"low"}}}},{{"type":"image_url","image_url":{{"url":"data:image/jpeg;base64,{b}"}}}},{{"type":"image_url","image_url":{{"url":"https://example.com/x.jpg"}}}}]}}]}}"#
            ),
        ),
        json(
            "/ollama",
            Preset::Ollama.shape(),
            1,
            format!(
                r#"{{"model":"m","stream":false,"messages":[{{"role":"user","content":"?","images":["{a}"]}}],"tools":[]}}"#
            ),
        ),
        json("/roboflow", Preset::Roboflow.shape(), 1, a.clone()),
        json(
            "/roboflow",
            Preset::Roboflow.shape(),
            1,
            format!(r#"{{"api_key": "K", "image": {{"type": "base64", "value": "{b}"}}}}"#),
        ),
        json(
            "/hf",
            Preset::HuggingFace.shape(),
            2,
            format!(
                r#"{{"inputs": "{a}", "parameters": {{}}, "question": "what?", "image": "{a}"}}"#
            ),
        ),
        json(
            "/own",
            Shape {
                pointers: vec!["/a/*/b".parse().expect("a pointer")],
                ..Shape::default()
            },
            1,
            format!(
                "{{\"a\":[{{\"b\":\"{}\"}},{{\"c\":1.50}}]}}",
                base64(&one, true, false)
            ),
        ),
        json(
            "/oip",
            oip,
            1,
            format!(
                r#"{{"inputs": [{{"name": "x", "shape": [1, 3, 224, 224], "datatype": "FP32", "data": [{flat}]}}]}}"#
            ),
        ),
    ]
}

/// Two photos as a tensor of type BYTES.
fn elements() -> Vec<u8> {
    let files = [photo("goldfish.jpg"), photo("dam.jpg")];
    files.iter().flat_map(|file| element(file)).collect()
}

/// A file in a tensor of type BYTES.
fn element(file: &[u8]) -> Vec<u8> {
    [&(file.len() as u32).to_le_bytes()[..], file].concat()
}

/// An inference request with one binary tensor, and the length of its JSON.
fn inference(dims: &str, datatype: &str, data: &[u8]) -> (String, Vec<u8>) {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","shape":[{dims}],"datatype":"{datatype}","parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        data.len()
    );
    let length = json.len().to_string();
    (length, [json.as_bytes(), data].concat())
}

fn binary_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dims, datatype, data, inputs) in [
        (
            "1,3,224,224",
            "FP32",
            numbers(Element::F32, Layout::Chw, Notation::Binary, "imagenet"),
            1,
        ),
        (
            "1,3,224,224",
            "FP16",
            numbers(Element::F16, Layout::Chw, Notation::Binary, "imagenet"),
            1,
        ),
        (
            "3,224,224",
            "UINT8",
            numbers(Element::U8, Layout::Chw, Notation::Binary, "zero-to-255"),
            1,
        ),
        ("2,1", "BYTES", elements(), 2),
    ] {
        let (length, body) = inference(dims, datatype, &data);
        for coding in ["", "gzip"] {
            let mut headers = vec![(JSON_LENGTH, length.clone())];
            let mut sent = body.clone();
            if coding == "gzip" {
                headers.push(("content-encoding", coding.to_owned()));
                sent = gzip(&body);
            }
            cases.push(Case {
                path: "/oip",
                headers,
                body: sent,
                shape: tensors(Preset::Oip, Some(Layout::Chw), "imagenet"),
                inputs,
            });
        }
    }
    cases.push(Case {
        path: "/raw",
        headers: vec![("content-type", "application/octet-stream".to_owned())],
        body: numbers(Element::U8, Layout::Hwc, Notation::Binary, "zero-to-255"),
        shape: Shape {
            tensors: Some(Tensors {
                body: Some((Element::U8, vec![1, 224, 224, 3])),
                ..Tensors::default()
            }),
            ..Shape::default()
        },
        inputs: 1,
    });
    let file = photo("dam.jpg");
    let form = [
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"image\"\r\nContent-Length: {}\r\n\r\n",
            file.len()
        )
        .as_bytes(),
        &file,
        b"\r\n--b--\r\n",
    ]
    .concat();
    cases.push(Case {
        path: "/auto",
        headers: vec![("content-type", "multipart/form-data; boundary=b".to_owned())],
        body: form,
        shape: Shape::default(),
        inputs: 1,
    });
    cases
}

fn find(headers: &HeaderMap, body: &[u8], shape: &Shape) -> Found {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().expect("text"));
    let request = slot::Request {
        body,
        content_type: text("content-type"),
        json_length: text(JSON_LENGTH).map(|digits| digits.parse().expect("a number")),
    };
    slot::find(&request, shape, &Limits::default()).expect("a body of this shape")
}

/// What arrived is what was sent, byte for byte, but for so many inputs, which have the same form and
/// are as near as the codec gives them.
fn compare(
    what: &str,
    (shape, inputs): (&Shape, usize),
    (sent, plain): (&HeaderMap, &[u8]),
    (headers, body): (&HeaderMap, &[u8]),
) {
    let (before, after) = (find(sent, plain, shape), find(headers, body, shape));
    assert_eq!(
        (before.inputs.len(), after.inputs.len()),
        (inputs, inputs),
        "{what}"
    );
    assert_eq!(slot::cut(plain, &before), slot::cut(body, &after), "{what}");
    for (before, after) in before.inputs.iter().zip(&after.inputs) {
        assert_eq!(before.form, after.form, "{what}");
        let limits = Limits::default();
        let before = before.form.read(&plain[before.range.clone()], &limits);
        let after = after.form.read(&body[after.range.clone()], &limits);
        let distance = distance(&before.expect("pixels"), &after.expect("pixels"));
        assert!(distance < 12.0, "{what}: {distance} levels off");
    }
}

/// How far two pictures are from each other, a sample in the mean.
fn distance(a: &Picture, b: &Picture) -> f64 {
    assert_eq!((a.width, a.height, a.color), (b.width, b.height, b.color));
    let sum: u64 = a
        .rgb
        .iter()
        .zip(&b.rgb)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.rgb.len() as f64
}

/// Requests that crossed as codes.
async fn coded(client: &Client, stack: &Stack) -> usize {
    let page = format!("http://{}/metrics", stack.device.address("admin"));
    client
        .metric(
            &page,
            "sidecod_device_requests_total",
            &["outcome=\"code\""],
        )
        .await
        .expect("metrics") as usize
}

#[tokio::test]
async fn all_but_the_pixels_arrives_as_it_was_sent() {
    let (stack, asked) = start(ROUTES).await;
    let client = Client::default();
    let url = format!("http://{}", stack.device.address("reverse"));
    for (index, case) in json_cases().into_iter().chain(binary_cases()).enumerate() {
        let what = format!("case {index}, {}", case.path);
        let mut request = Request::post(format!("{url}{}", case.path));
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Bytes::from(case.body.clone()))
            .expect("a request");
        let sent = request.headers().clone();
        let answer = client.send(request).await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.body()[..]),
            (200, &b"{}"[..]),
            "{what}"
        );
        assert_eq!(
            coded(&client, &stack).await,
            index + 1,
            "{what}: crosses as a code"
        );

        let (headers, body) = asked.lock().expect("the list").pop().expect("a request");
        assert!(!headers.contains_key("content-encoding"), "{what}");
        assert_eq!(headers["content-length"], body.len().to_string(), "{what}");
        assert_eq!(
            headers.get("content-type"),
            sent.get("content-type"),
            "{what}"
        );
        let mut plain = case.body;
        if sent.contains_key("content-encoding") {
            let mut decoded = Vec::new();
            let mut gzip = flate2::bufread::GzDecoder::new(&plain[..]);
            std::io::Read::read_to_end(&mut gzip, &mut decoded).expect("gzip");
            plain = decoded;
        }
        let expected = (&case.shape, case.inputs);
        compare(&what, expected, (&sent, &plain), (&headers, &body));
    }
    stack.device.stop().expect("the device ends");
    stack.edge.stop().expect("the edge ends");
}

#[tokio::test]
async fn a_route_may_have_photos_written_as_another_type() {
    let (stack, asked) = start(ROUTES).await;
    let url = format!("http://{}/bmp", stack.device.address("reverse"));
    let file = photo("goldfish.jpg");
    let answer = Client::default()
        .post(&url, "image/jpeg", Bytes::from(file))
        .await;
    assert_eq!(answer.expect("an answer").status(), 200);
    let (headers, body) = asked.lock().expect("the list").pop().expect("a request");
    assert_eq!(headers["content-type"], MediaType::Bmp.mime());
    assert!(body.starts_with(b"BM"));
}
