//! Codes on trial, with the built programs and a real model: requests are sent both ways, answers
//! compared, and a codec that spoils them is found out.

#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use sidecod_bench::client::Client;
use sidecod_bench::photos;
use sidecod_bench::stack::{Stack, program, workspace};

const PATH: &str = "/predictions/efficientnet-lite0";

/// One stack at a time: decoding takes all the cores that there are.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Running {
    stack: Stack,
    client: Client,
    photos: Vec<Bytes>,
}

impl Running {
    /// The demo, whose route has these keys.
    async fn start(keys: &str) -> Self {
        let route = format!(
            "route=[{{name='classify', path='/predictions/*', timeout_ms=120000, {keys}}}]"
        );
        let folder = workspace().join("examples/photos");
        let photos = photos::list(&folder, None).expect("photos");
        let photos = photos.iter().map(|photo| {
            let crop = photos::centre_crop(photo, 256, 224).expect("a crop");
            photos::jpeg(&crop, 92).expect("a JPEG").into()
        });
        Self {
            stack: Stack::start(&["--set", &route], &[])
                .await
                .expect("a stack"),
            client: Client::default(),
            photos: photos.collect(),
        }
    }

    /// Sends one of the photos, and gives the first class.
    async fn send(&self, index: usize) -> String {
        let url = format!("http://{}{PATH}", self.stack.device.address("reverse"));
        let photo = self.photos[index % self.photos.len()].clone();
        let answer = self.client.post(&url, "image/jpeg", photo).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let json: Value = serde_json::from_slice(answer.body()).expect("JSON");
        json["predictions"][0]["class"].to_string()
    }

    async fn route(&self) -> Value {
        let url = format!("http://{}/report", self.stack.device.address("admin"));
        let answer = self.client.get(&url).await.expect("a report");
        let json: Value = serde_json::from_slice(answer.body()).expect("JSON");
        json["routes"][0].clone()
    }

    /// Sends photos, one at a time, until the report says so.
    async fn until(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_mins(5);
        for index in 0.. {
            self.send(index).await;
            let route = self.route().await;
            if done(&route) {
                return route;
            }
            assert!(Instant::now() < deadline, "{what}: {route}");
        }
        unreachable!("the loop does not end")
    }

    async fn outcome(&self, outcome: &str) -> f64 {
        let page = format!("http://{}/metrics", self.stack.device.address("admin"));
        let label = format!("outcome=\"{outcome}\"");
        self.client
            .metric(&page, "sidecod_device_requests_total", &[&label])
            .await
            .expect("metrics")
    }

    /// What `proxy-device report` prints.
    fn report(&self) -> String {
        let output = Command::new(program("proxy-device").expect("proxy-device"))
            .args(["report", "--admin", self.stack.device.address("admin")])
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

fn number(value: &Value, pointer: &str) -> f64 {
    value
        .pointer(pointer)
        .and_then(Value::as_f64)
        .unwrap_or(0.0)
}

#[tokio::test]
async fn answers_are_compared_and_the_app_does_not_notice() {
    let _alone = ALONE.lock().await;
    let running = Running::start("quality='q1', verify=1.0, min_agreement=0.1").await;
    let route = running
        .until("comparisons", |route| {
            number(route, "/agreement/cases") >= 6.0
        })
        .await;
    assert_eq!(route["trust"], "trusted", "{route}");
    let coded = &route["coded"];
    assert!(
        number(coded, "/code") < number(coded, "/original"),
        "{route}"
    );
    // Each was sent again as it was, and none that the app had sent counts twice.
    assert!(number(&route, "/verify_bytes") >= 6.0 * 1000.0, "{route}");
    let sent = running.outcome("code").await + running.outcome("passthrough").await;
    assert!((number(&route, "/requests") - sent).abs() < 0.5, "{route}");
    let text = running.report();
    for says in [
        "route classify: offloaded",
        "% less sent",
        "ms as they are",
        "95 % interval",
        "floor 10.0 %",
    ] {
        assert!(text.contains(says), "{says} in {text}");
    }
}

#[tokio::test]
async fn a_codec_that_spoils_answers_is_found_out_and_tried_again() {
    let _alone = ALONE.lock().await;
    // Eight pixels are not enough for any model.
    let running = Running::start(
        "quality='q6', max_side=8, verify=1.0, min_agreement=0.9, try_again_ms=4000",
    )
    .await;
    let route = running
        .until("distrust", |route| route["trust"] == "distrusted")
        .await;
    assert!(number(&route, "/agreement/high") < 0.9, "{route}");
    assert!(running.report().contains("distrusted, passes through"));
    let coded = running.outcome("code").await;
    let through = running.outcome("passthrough").await;
    running.send(0).await;
    assert!((running.outcome("code").await - coded).abs() < 0.5);
    assert!(running.outcome("passthrough").await > through);

    // It is tried again, for nobody to see, and found out again.
    let before = number(&route, "/observed/requests");
    let route = running
        .until("a second trial", |route| {
            number(route, "/observed/requests") >= before + 20.0 && route["trust"] == "distrusted"
        })
        .await;
    assert!(
        (running.outcome("code").await - coded).abs() < 0.5,
        "{route}"
    );
}

#[tokio::test]
async fn observing_computes_and_sends_nothing() {
    let _alone = ALONE.lock().await;
    let running = Running::start("quality='q3', mode='observe'").await;
    let route = running
        .until("observations", |route| {
            number(route, "/observed/requests") >= 3.0
        })
        .await;
    let observed = &route["observed"];
    assert!(
        number(observed, "/code") < number(observed, "/original"),
        "{route}"
    );
    assert!(running.outcome("code").await < 0.5);
    let page = format!("http://{}/metrics", running.stack.edge.address("admin"));
    let frames = running
        .client
        .metric(&page, "sidecod_edge_requests_total", &["outcome=\"code\""])
        .await;
    assert!(frames.expect("metrics") < 0.5);
    let text = running.report();
    for says in [
        "observed, nothing is sent as a code",
        "if sent",
        "say verify = 0.02",
    ] {
        assert!(text.contains(says), "{says} in {text}");
    }
}

#[tokio::test]
async fn observing_with_verify_tells_the_agreement_before_a_code_is_trusted() {
    let _alone = ALONE.lock().await;
    let running = Running::start("quality='q1', mode='observe', verify=1.0").await;
    let route = running
        .until("comparisons", |route| {
            number(route, "/agreement/cases") >= 3.0
        })
        .await;
    assert!(number(&route, "/agreement/share") > 0.0, "{route}");
    assert!(number(&route, "/times/code_ms") > 0.0, "{route}");
    // The app has had the answers of originals alone.
    assert!(running.outcome("code").await < 0.5);
}
