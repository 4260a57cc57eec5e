//! The built programs together: whatever the app sends, it gets the model server's own answer.

#![allow(clippy::expect_used)] // a test fails by panicking

use bytes::Bytes;
use http::{Request, StatusCode};
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use sidecod_bench::client::Client;
use sidecod_bench::photos;
use sidecod_bench::stack::{Stack, workspace};

const PATH: &str = "/predictions/efficientnet-lite0";

/// One stack at a time: decoding takes all the cores that there are.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How a request is expected to cross.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Code,
    AsItIs,
}

struct Case {
    name: &'static str,
    content_type: String,
    body: Vec<u8>,
    way: Way,
}

fn photo() -> Vec<u8> {
    std::fs::read(workspace().join("examples/photos/polar-bear.jpg")).expect("the demo's photo")
}

/// A smooth picture with some texture, of any size.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = (f64::from(x) / 9.0).sin() * 40.0 + (f64::from(y) / 23.0).cos() * 50.0;
        let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) >> 28;
        let value = 120.0 + wave + f64::from(noise);
        image::Rgb([value as u8, (value * 0.8) as u8, (255.0 - value) as u8])
    })
}

fn png(pixels: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
    let mut file = Vec::new();
    image::codecs::png::PngEncoder::new(&mut file)
        .write_image(pixels, width, height, color)
        .expect("a PNG");
    file
}

fn palette_png(side: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(
        (0..=255_u8)
            .flat_map(|i| [i, 255 - i, i / 2])
            .collect::<Vec<u8>>(),
    );
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..side * side)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&noise))
        .expect("a PNG");
    file
}

fn cmyk_jpeg(side: u16) -> Vec<u8> {
    let mut file = Vec::new();
    let pixels: Vec<u8> = (0..u32::from(side).pow(2) * 4)
        .map(|i| (i / 7) as u8)
        .collect();
    jpeg_encoder::Encoder::new(&mut file, 90)
        .encode(&pixels, side, side, jpeg_encoder::ColorType::Cmyk)
        .expect("a CMYK JPEG");
    file
}

fn rotated_jpeg(picture: &RgbImage, orientation: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, 92);
    let mut exif = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    encoder.add_exif_metadata(&exif).expect("room for EXIF");
    let (width, height) = picture.dimensions();
    encoder
        .encode(
            picture,
            width as u16,
            height as u16,
            jpeg_encoder::ColorType::Rgb,
        )
        .expect("a JPEG");
    file
}

fn grey_jpeg(picture: &RgbImage) -> Vec<u8> {
    let grey = image::DynamicImage::ImageRgb8(picture.clone()).into_luma8();
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 92)
        .encode_image(&grey)
        .expect("a JPEG");
    file
}

fn form(photo: &[u8]) -> (String, Vec<u8>) {
    let mut body = b"--frontier\r\nContent-Disposition: form-data; name=\"top\"\r\n\r\n5\r\n--frontier\r\n\
        Content-Disposition: form-data; name=\"image\"; filename=\"g.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n"
        .to_vec();
    body.extend_from_slice(photo);
    body.extend_from_slice(b"\r\n--frontier--\r\n");
    ("multipart/form-data; boundary=frontier".to_owned(), body)
}

fn cases() -> Vec<Case> {
    let jpeg = |picture: &RgbImage| photos::jpeg(picture, 92).expect("a JPEG");
    let mut cases = Vec::new();
    let mut case = |name, content_type: &str, body, way| {
        cases.push(Case {
            name,
            content_type: content_type.to_owned(),
            body,
            way,
        });
    };
    case("photo", "image/jpeg", photo(), Way::Code);
    let (content_type, body) = form(&photo());
    case("photo in a form", &content_type, body, Way::Code);
    for (name, width, height) in [
        ("37x1", 37, 1),
        ("1x211", 1, 211),
        ("223x225", 223, 225),
        ("640x481", 640, 481),
    ] {
        case(name, "image/jpeg", jpeg(&scene(width, height)), Way::Code);
    }
    // More pixels than the demo's limit.
    case(
        "4000x3000",
        "image/jpeg",
        jpeg(&scene(4000, 3000)),
        Way::AsItIs,
    );

    case(
        "1x1",
        "image/png",
        png(&[9, 99, 200], 1, 1, ExtendedColorType::Rgb8),
        Way::Code,
    );
    let picture = scene(300, 200);
    case("grey JPEG", "image/jpeg", grey_jpeg(&picture), Way::Code);
    case(
        "PNG",
        "image/png",
        png(&picture, 300, 200, ExtendedColorType::Rgb8),
        Way::Code,
    );
    let grey = image::DynamicImage::ImageRgb8(picture.clone()).into_luma8();
    case(
        "grey PNG",
        "image/png",
        png(&grey, 300, 200, ExtendedColorType::L8),
        Way::Code,
    );
    case("palette PNG", "image/png", palette_png(256), Way::Code);
    case(
        "rotated by EXIF",
        "image/jpeg",
        rotated_jpeg(&picture, 6),
        Way::Code,
    );
    case("wrong content-type", "image/png", jpeg(&picture), Way::Code);
    let rgba = image::DynamicImage::ImageRgb8(picture.clone()).into_rgba8();
    case(
        "alpha",
        "image/png",
        png(&rgba, 300, 200, ExtendedColorType::Rgba8),
        Way::AsItIs,
    );
    let deep: Vec<u8> = picture.iter().flat_map(|v| [*v, *v]).collect();
    case(
        "16 bits",
        "image/png",
        png(&deep, 300, 200, ExtendedColorType::Rgb16),
        Way::AsItIs,
    );
    case("CMYK", "image/jpeg", cmyk_jpeg(64), Way::AsItIs);
    let whole = jpeg(&picture);
    case(
        "truncated",
        "image/jpeg",
        whole[..whole.len() / 2].to_vec(),
        Way::AsItIs,
    );
    case(
        "header only",
        "image/jpeg",
        whole[..20].to_vec(),
        Way::AsItIs,
    );
    case(
        "not a photo",
        "image/jpeg",
        b"hello, this is no photo".to_vec(),
        Way::AsItIs,
    );
    case("empty", "image/jpeg", Vec::new(), Way::AsItIs);
    case(
        "broken form",
        "multipart/form-data; boundary=frontier",
        b"--frontier\r\n".to_vec(),
        Way::AsItIs,
    );
    cases
}

fn url(stack: &Stack, role: &str) -> String {
    let address = if role == "device" {
        stack.device.address("reverse")
    } else {
        stack.server.address("data")
    };
    format!("http://{address}")
}

async fn coded(client: &Client, stack: &Stack) -> f64 {
    let page = format!("http://{}/metrics", stack.device.address("admin"));
    client
        .metric(
            &page,
            "sidecod_device_requests_total",
            &["outcome=\"code\""],
        )
        .await
        .expect("metrics")
}

#[tokio::test]
async fn every_photo_gets_the_model_servers_own_answer() {
    let _alone = ALONE.lock().await;
    let stack = Stack::start(&[], &[]).await.expect("a stack");
    let client = Client::default();
    for case in cases() {
        let Case {
            name,
            content_type,
            body,
            way,
        } = case;
        let body = Bytes::from(body);
        let post = |role| {
            let (client, url) = (client.clone(), format!("{}{PATH}", url(&stack, role)));
            let (content_type, body) = (content_type.clone(), body.clone());
            async move {
                client
                    .post(&url, &content_type, body)
                    .await
                    .expect("an answer")
            }
        };
        let direct = post("server").await;
        let before = coded(&client, &stack).await;
        let offloaded = post("device").await;
        let crossed = if coded(&client, &stack).await > before {
            Way::Code
        } else {
            Way::AsItIs
        };
        assert_eq!(crossed, way, "{name}");
        assert_eq!(offloaded.status(), direct.status(), "{name}");
        assert!(!offloaded.headers().contains_key("sidecod-error"), "{name}");
        assert!(!offloaded.headers().contains_key("server-timing"), "{name}");
        assert_eq!(
            offloaded.headers().get("content-type"),
            direct.headers().get("content-type"),
            "{name}"
        );
        match way {
            Way::AsItIs => assert_eq!(offloaded.body(), direct.body(), "{name}"),
            Way::Code => {
                assert_eq!(direct.status(), StatusCode::OK, "{name}");
                let json: serde_json::Value = serde_json::from_slice(offloaded.body()).expect(name);
                assert_eq!(
                    json["predictions"].as_array().map(Vec::len),
                    Some(5),
                    "{name}"
                );
            }
        }
    }
    stack.device.stop().expect("the device drains");
    stack.edge.stop().expect("the edge drains");
}

#[tokio::test]
async fn a_clear_photo_is_the_same_class_after_the_trip() {
    let _alone = ALONE.lock().await;
    let stack = Stack::start(&[], &[]).await.expect("a stack");
    let client = Client::default();
    let first = async |role: &str, content_type: &str, body: Vec<u8>| {
        let url = format!("{}{PATH}", url(&stack, role));
        let answer = client
            .post(&url, content_type, body.into())
            .await
            .expect("an answer");
        let json: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        json["predictions"][0]["index"].as_u64().expect("an index")
    };
    let direct = first("server", "image/jpeg", photo()).await;
    assert_eq!(first("device", "image/jpeg", photo()).await, direct);
    let (content_type, body) = form(&photo());
    assert_eq!(first("device", &content_type, body).await, direct);
}

#[tokio::test]
async fn a_route_may_have_photos_reduced_before_they_cross() {
    let _alone = ALONE.lock().await;
    let client = Client::default();
    let mut sent = Vec::new();
    for max_side in [0, 320] {
        let route = format!(
            "route=[{{name='classify', path='/predictions/*', quality='q4', timeout_ms=120000, max_side={max_side}}}]"
        );
        let stack = Stack::start(&["--set", &route], &[])
            .await
            .expect("a stack");
        let target = format!("{}{PATH}", url(&stack, "device"));
        let answer = client
            .post(&target, "image/jpeg", photo().into())
            .await
            .expect("an answer");
        let json: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        assert_eq!(json["predictions"][0]["class"], "polar bear", "{json}");
        assert!((0.5..1.5).contains(&coded(&client, &stack).await));
        let page = format!("http://{}/metrics", stack.device.address("admin"));
        let bytes = client
            .metric(
                &page,
                "sidecod_device_link_bytes_total",
                &["direction=\"sent\""],
            )
            .await;
        sent.push(bytes.expect("metrics"));
    }
    assert!(sent[1] < 0.5 * sent[0], "{sent:?}");
}

#[tokio::test]
async fn what_no_route_takes_passes_through() {
    let _alone = ALONE.lock().await;
    let stack = Stack::start(&[], &[]).await.expect("a stack");
    let client = Client::default();
    for (method, path) in [
        ("GET", "/health"),
        ("GET", "/nothing"),
        ("PUT", PATH),
        ("HEAD", "/health"),
    ] {
        let send = async |role| {
            let uri = format!("{}{path}", url(&stack, role));
            client
                .send(
                    Request::builder()
                        .method(method)
                        .uri(uri)
                        .body(Bytes::new())
                        .expect("a request"),
                )
                .await
                .expect("an answer")
        };
        let (direct, passed) = (send("server").await, send("device").await);
        assert_eq!(passed.status(), direct.status(), "{method} {path}");
        assert_eq!(passed.body(), direct.body(), "{method} {path}");
    }
    assert!(coded(&client, &stack).await < 0.5);
}

#[tokio::test]
async fn an_edge_that_is_gone_costs_no_request() {
    let _alone = ALONE.lock().await;
    let mut stack = Stack::start(&[], &[]).await.expect("a stack");
    let client = Client::default();
    let device = format!("{}{PATH}", url(&stack, "device"));
    let send = async || {
        client
            .post(&device, "image/jpeg", photo().into())
            .await
            .expect("an answer")
            .status()
    };
    assert_eq!(send().await, StatusCode::OK);
    let arguments = stack.edge.arguments().to_vec();
    let address = stack.edge.address("data").to_owned();
    stack.edge.stop().expect("the edge drains");
    assert_eq!(
        send().await,
        StatusCode::OK,
        "through the model server directly"
    );

    // The edge comes back at the same address, and codes cross again.
    let mut arguments = arguments;
    arguments.extend(["--set".to_owned(), format!("listen=\"{address}\"")]);
    stack.edge =
        sidecod_bench::stack::Program::start("proxy-edge", &arguments).expect("the edge again");
    let before = coded(&client, &stack).await;
    for _ in 0..100 {
        assert_eq!(send().await, StatusCode::OK);
        if coded(&client, &stack).await > before {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("no code has crossed since the edge came back");
}

#[tokio::test]
async fn a_model_server_that_is_gone_is_a_clear_error() {
    let _alone = ALONE.lock().await;
    let stack = Stack::start(&[], &[]).await.expect("a stack");
    let client = Client::default();
    let device = format!("{}{PATH}", url(&stack, "device"));
    stack.server.stop().expect("the model server ends");
    let answer = client
        .post(&device, "image/jpeg", photo().into())
        .await
        .expect("an answer");
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert!(answer.headers().contains_key("sidecod-error"));
}

/// Peak memory of a process, in bytes.
fn peak(id: u32) -> u64 {
    let peak = sidecod_bench::process::mib(id, "VmHWM").expect("the process");
    (peak * f64::from(1 << 20)) as u64
}

#[tokio::test]
async fn the_device_stays_small() {
    let _alone = ALONE.lock().await;
    // Photos coded at their full size.
    let route = "route=[{name='classify', path='/predictions/*', content_type=['image/*'], quality='q3', timeout_ms=120000}]";
    let stack = Stack::start(&["--set", route], &[]).await.expect("a stack");
    let client = Client::default();
    // Larger than anything that may be held, so it has to be streamed; the model server reads it
    // whole before it says that this is no picture.
    let large = Bytes::from(vec![7; 24 << 20]);
    for _ in 0..4 {
        let target = format!("{}{PATH}", url(&stack, "device"));
        let answer = client
            .post(&target, "application/octet-stream", large.clone())
            .await
            .expect("an answer");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }
    let passthrough = peak(stack.device.id());
    let body = Bytes::from(photos::jpeg(&scene(1920, 1080), 92).expect("a JPEG"));
    for _ in 0..3 {
        let target = format!("{}{PATH}", url(&stack, "device"));
        let answer = client
            .post(&target, "image/jpeg", body.clone())
            .await
            .expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert!((2.5..3.5).contains(&coded(&client, &stack).await));
    let codec = peak(stack.device.id());
    println!(
        "peak memory of proxy-device: {} KiB passing through, {} KiB coding 1920x1080",
        passthrough >> 10,
        codec >> 10
    );
    assert!(
        passthrough < 30 << 20,
        "{passthrough} bytes passing through"
    );
    assert!(codec < 80 << 20, "{codec} bytes coding 1920x1080");
}
