//! The built programs with a model cut in two: whichever way a photo takes, the answer is the same.

#![allow(clippy::expect_used)] // a test fails by panicking

use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use sidecod_bench::client::Client;
use sidecod_bench::fidelity::points;
use sidecod_bench::stack::{Stack, program, workspace};

const PATH: &str = "/predictions/efficientnet-lite0";
const FORCE: &str = "x-option";
const PHOTOS: [&str; 3] = ["polar-bear", "goldfish", "komodo-dragon"];

/// One stack at a time: decoding takes all the cores that there are.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The points that `make points` builds.
fn points() -> Vec<PathBuf> {
    points::folders(&workspace().join("target/points")).expect("make points builds them")
}

fn list(paths: &[PathBuf]) -> String {
    format!("{paths:?}")
}

fn photo(name: &str) -> Bytes {
    let file = workspace()
        .join("examples/photos")
        .join(name)
        .with_extension("jpg");
    std::fs::read(file).expect("a photo of the examples").into()
}

/// Name of a point's bundle.
fn bundle(folder: &std::path::Path) -> String {
    let manifest = std::fs::read(folder.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    manifest["name"].as_str().expect("a name").to_owned()
}

fn set(key: &str, value: &str) -> String {
    format!("{key}={value}")
}

/// The stack with all points, and the names of its options.
async fn stack() -> (Stack, Vec<String>) {
    let points = points();
    let names = points.iter().map(|folder| format!("{}:q1", bundle(folder)));
    let mut options: Vec<String> = names.collect();
    options.extend(["photo-light:q3", "local", "passthrough"].map(ToOwned::to_owned));
    let route = format!(
        "[{{ name = \"photos\", path = \"{PATH}\", options = {options:?}, max_side = 512, timeout_ms = 240000 }}]"
    );
    let mut bundles = points.clone();
    bundles.push(workspace().join("onnx/codecs/photo-light"));
    let device = [
        set("codec.heads", &list(&points)),
        set(
            "codec.local",
            &format!("\"{}\"", workspace().join("target/points/local").display()),
        ),
        set("plan.force_header", &format!("{FORCE:?}")),
        set("route", &route),
    ];
    let device: Vec<&str> = device
        .iter()
        .flat_map(|value| ["--set", value.as_str()])
        .collect();
    let edge = set("bundles", &list(&bundles));
    let stack = Stack::start(&device, &["--set", &edge]).await;
    (stack.expect("all three start"), options)
}

/// The keys of an object in their order, and of the first of a list, as text.
fn shape(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shape = String::new();
    let (mut in_text, mut word) = (false, String::new());
    for c in text.chars() {
        match c {
            '"' => in_text = !in_text,
            c if in_text => word.push(c),
            ':' => {
                shape.push_str(&std::mem::take(&mut word));
                shape.push(' ');
            }
            '{' | '[' | ']' | '}' => shape.push(c),
            _ => word.clear(),
        }
    }
    shape
}

async fn ask(
    client: &Client,
    url: &str,
    option: Option<&str>,
    body: Bytes,
) -> http::Response<Bytes> {
    let mut request = Request::post(url).header("content-type", "image/jpeg");
    if let Some(option) = option {
        request = request.header(FORCE, option);
    }
    let request = request.body(body).expect("a request");
    client.send(request).await.expect("an answer")
}

#[tokio::test]
async fn every_option_gives_an_answer_of_the_same_shape() {
    let _alone = ALONE.lock().await;
    let (stack, options) = stack().await;
    let client = Client::default();
    let direct = format!("http://{}{PATH}", stack.server.address("data"));
    let device = format!("http://{}{PATH}", stack.device.address("reverse"));
    let page = format!("http://{}/metrics", stack.device.address("admin"));
    let mut same = 0;
    for name in PHOTOS {
        let wanted = ask(&client, &direct, None, photo(name)).await;
        assert_eq!(wanted.status(), StatusCode::OK);
        let best = |answer: &http::Response<Bytes>| -> Value {
            let json: Value = serde_json::from_slice(answer.body()).expect("JSON");
            json["predictions"][0]["index"].clone()
        };
        for option in &options {
            let answer = ask(&client, &device, Some(option), photo(name)).await;
            assert_eq!(answer.status(), StatusCode::OK, "{name} {option}");
            assert_eq!(
                shape(answer.body()),
                shape(wanted.body()),
                "{name} {option}"
            );
            assert_eq!(
                answer.headers()["content-type"],
                wanted.headers()["content-type"],
                "{name} {option}"
            );
            println!(
                "{name} {option}: {}",
                String::from_utf8_lossy(answer.body())
            );
            if option == "local" || option == "passthrough" {
                assert_eq!(best(&answer), best(&wanted), "{name} {option}");
            }
            same += usize::from(best(&answer) == best(&wanted));
        }
    }
    // A code loses something, and now and then the first class with it.
    let all = PHOTOS.len() * options.len();
    assert!(
        same * 4 >= all * 3,
        "{same} of {all} first classes are the same"
    );
    let outcomes = |outcome: &'static str| {
        let (client, page) = (&client, &page);
        async move {
            let labels = [&format!("outcome=\"{outcome}\"")[..]];
            let metric = client
                .metric(page, "sidecod_device_requests_total", &labels)
                .await;
            metric.expect("a metric") as usize
        }
    };
    // Each point, and the input.
    assert_eq!(outcomes("code").await, PHOTOS.len() * (options.len() - 2));
    assert_eq!(outcomes("local").await, PHOTOS.len());
    for program in [stack.device, stack.edge, stack.server] {
        program.stop().expect("it ends when asked");
    }
}

#[tokio::test]
async fn without_edge_and_server_the_device_answers_itself() {
    let _alone = ALONE.lock().await;
    let (stack, options) = stack().await;
    let client = Client::default();
    let direct = format!("http://{}{PATH}", stack.server.address("data"));
    let device = format!("http://{}{PATH}", stack.device.address("reverse"));
    let page = format!("http://{}/metrics", stack.device.address("admin"));
    let wanted = ask(&client, &direct, None, photo("goldfish")).await;
    for program in [stack.edge, stack.server] {
        program.stop().expect("it ends when asked");
    }
    for option in options.iter().filter(|option| *option != "local") {
        let answer = ask(&client, &device, Some(option), photo("goldfish")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{option}");
        assert_eq!(shape(answer.body()), shape(wanted.body()), "{option}");
    }
    let labels = ["outcome=\"fallback_local\""];
    let fallback = client
        .metric(&page, "sidecod_device_requests_total", &labels)
        .await;
    assert_eq!(fallback.expect("a metric") as usize, options.len() - 1);
}

#[test]
fn the_edge_measures_what_a_feature_takes() {
    let _alone = ALONE.blocking_lock();
    let out = tempfile::tempdir().expect("a folder");
    let out = out.path().join("edge.json");
    let measured = std::process::Command::new(program("proxy-edge").expect("a program"))
        .current_dir(workspace())
        .args(["--config", "examples/demo/proxy-edge.toml", "--set"])
        .arg(set("bundles", &list(&points()[..1])))
        .args(["profile", "--max-side", "64", "--out"])
        .arg(&out)
        .output()
        .expect("proxy-edge runs");
    let said = String::from_utf8_lossy(&measured.stderr);
    assert!(measured.status.success(), "{said}");
    let profile: Value =
        serde_json::from_slice(&std::fs::read(out).expect("a profile")).expect("JSON");
    let sizes = profile["parts"][0]["points"].as_array();
    assert!(sizes.is_some_and(|sizes| !sizes.is_empty()), "{profile:#}");
}
