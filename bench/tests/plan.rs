//! The plan of the built programs: options as requests force them, as the plan chooses them, and
//! profiles of both machines.

#![allow(clippy::expect_used)] // a test fails by panicking

use std::process::Command;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use sidecod_bench::client::Client;
use sidecod_bench::stack::{Stack, program, workspace};

const PATH: &str = "/predictions/efficientnet-lite0";
const OPTIONS: [&str; 4] = ["photo-light:q3", "webp:80", "jpeg:75", "passthrough"];

/// One stack at a time: decoding takes all the cores that there are.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Plan {
    stack: Stack,
    client: Client,
    photo: Bytes,
}

impl Plan {
    async fn start(route: &str, more: &[&str], edge: &[&str]) -> Self {
        let route = format!("route=[{{ name = \"r\", path = \"/predictions/*\", {route} }}]");
        let force = "plan.force_header=\"x-option\"";
        let mut device = vec!["--set", &route, "--set", force];
        device.extend(more);
        let photo = workspace().join("examples/photos/goldfish.jpg");
        let photo = image::open(photo).expect("a photo").thumbnail(256, 256);
        let photo = sidecod_bench::photos::jpeg(&photo.into_rgb8(), 95).expect("a JPEG");
        Self {
            stack: Stack::start(&device, edge).await.expect("a stack"),
            client: Client::default(),
            photo: photo.into(),
        }
    }

    /// Sends the photo, and gives the first class of the answer.
    async fn classify(&self, option: Option<&str>) -> u64 {
        let url = format!("http://{}{PATH}", self.stack.device.address("reverse"));
        let mut request = Request::post(url).header("content-type", "image/jpeg");
        if let Some(option) = option {
            request = request.header("x-option", option);
        }
        let request = request.body(self.photo.clone()).expect("a request");
        let answer = self.client.send(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{option:?}");
        let json: Value = serde_json::from_slice(answer.body()).expect("JSON");
        json["predictions"][0]["index"].as_u64().expect("a class")
    }

    async fn page(&self) -> Value {
        let url = format!("http://{}/plan", self.stack.device.address("admin"));
        let answer = self.client.get(&url).await.expect("a page");
        serde_json::from_slice(answer.body()).expect("JSON")
    }

    async fn outcomes(&self, outcome: &str) -> f64 {
        let page = format!("http://{}/metrics", self.stack.device.address("admin"));
        let labels = [&format!("outcome=\"{outcome}\"")[..]];
        let name = "sidecod_device_requests_total";
        let counted = self.client.metric(&page, name, &labels).await;
        counted.expect("metrics")
    }
}

#[tokio::test]
async fn every_option_gives_the_same_answer() {
    let _alone = ALONE.lock().await;
    let plan = Plan::start(&format!("options = {OPTIONS:?}"), &[], &[]).await;
    let mut sizes = Vec::new();
    for (option, outcome) in
        OPTIONS
            .into_iter()
            .zip(["code", "classical", "classical", "passthrough"])
    {
        let before = plan.outcomes(outcome).await;
        assert_eq!(plan.classify(Some(option)).await, 1, "{option}: a goldfish");
        assert!(
            (plan.outcomes(outcome).await - before - 1.0).abs() < 0.5,
            "{option}"
        );
        let last = plan.page().await["routes"][0]["last"].clone();
        assert_eq!(
            (&last["chosen"], &last["why"]),
            (&option.into(), &"forced".into())
        );
        sizes.push(last["measured"]["bytes"].as_f64().expect("bytes"));
    }
    let whole = plan.photo.len() as f64;
    assert!(
        sizes[..3].iter().all(|bytes| *bytes < whole * 0.8),
        "{sizes:?} of {whole}"
    );
    assert!((sizes[3] - whole).abs() < 0.5, "{sizes:?} of {whole}");
}

#[tokio::test]
async fn the_plan_chooses_above_the_floor_and_says_why() {
    let _alone = ALONE.lock().await;
    // Nothing is known of jpeg:10, so that it cannot keep the floor.
    let route =
        "floor = { agreement = 0.5 }, options = [\"photo-light:q3\", \"jpeg:10\", \"passthrough\"]";
    let plan = Plan::start(route, &["--set", "plan.refresh_ms=1"], &[]).await;
    for _ in 0..12 {
        assert_eq!(plan.classify(None).await, 1);
    }
    let page = plan.page().await;
    let route = &page["routes"][0];
    let taken = |index: usize| route["options"][index]["taken"].as_u64().expect("a count");
    assert_eq!(taken(0) + taken(2), 12, "{page:#}");
    assert_eq!(taken(1), 0, "{page:#}");
    assert_eq!(route["options"][1]["keeps_floor"], false);
    let last = &route["last"];
    let options = last["options"].as_array().expect("a list");
    for option in options {
        let part = |name: &str| option[name].as_f64().expect("a number");
        let parts = [
            "device_queue_ms",
            "device_ms",
            "network_ms",
            "edge_queue_ms",
            "edge_ms",
            "upstream_ms",
        ];
        let sum: f64 = parts.into_iter().map(part).sum();
        assert!((sum - part("total_ms")).abs() < 1e-6, "{option:#}");
    }
    let allowed: Vec<bool> = options.iter().map(|o| o["allowed"] == true).collect();
    assert_eq!(allowed, [true, false, true]);
    assert!(last["measured"]["total_ms"].as_f64().expect("a time") > 0.0);
    assert!(
        page["edges"][0]["observations"].as_u64().expect("a count") >= 12,
        "{page:#}"
    );
    assert!(page["edges"][0]["bandwidth_mbit"].as_f64().expect("a rate") > 0.0);
}

#[tokio::test]
async fn profiles_are_measured_read_and_handed_over() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (device, edge) = (file("device.json"), file("edge.json"));
    for (name, config, out) in [
        ("proxy-device", "proxy-device.toml", &device),
        ("proxy-edge", "proxy-edge.toml", &edge),
    ] {
        let config = workspace().join("examples/demo").join(config);
        let output = Command::new(program(name).expect("a program"))
            .arg("--config")
            .arg(config)
            .args(["profile", "--max-side", "160", "--out", out])
            .current_dir(workspace())
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {errors}");
        assert!(text.contains("160x160"), "{name}: {text}");
        assert!(text.contains("sizes left out of the fit"), "{name}: {text}");
    }
    let plan = Plan::start(
        "options = [\"photo-light:q3\", \"passthrough\"]",
        &["--set", &format!("plan.profile={device:?}")],
        &["--set", &format!("profile={edge:?}")],
    )
    .await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(2);
    let page = loop {
        let page = plan.page().await;
        if page["edges"][0]["profile"].is_string() {
            break page;
        }
        assert!(std::time::Instant::now() < deadline, "{page:#}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(page["profile"].is_string(), "{page:#}");
    plan.classify(Some("passthrough")).await;
    let last = plan.page().await["routes"][0]["last"].clone();
    let predicted = |name: &str| last["options"][0][name].as_f64().expect("a number");
    // Known before the option was ever taken.
    assert!(
        predicted("device_ms") > 0.0 && predicted("edge_ms") > 0.0,
        "{last:#}"
    );
}
