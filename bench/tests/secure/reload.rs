//! Configurations that change while requests are on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;

use super::ALONE;
use super::programs::{PATH, Sidecar, World, quoted, until};

async fn reloads(sidecar: &Sidecar, metric: &str, outcome: &str) -> f64 {
    sidecar
        .metric(metric, &format!("outcome=\"{outcome}\""))
        .await
}

fn hang_up(sidecar: &Sidecar) {
    let id = sidecar.program.id().to_string();
    let status = std::process::Command::new("kill")
        .args(["-HUP", &id])
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_changed_configuration_costs_no_request_and_a_bad_one_changes_nothing() {
    const DEVICE: &str = "sidecod_device_config_reloads_total";
    const EDGE: &str = "sidecod_edge_config_reloads_total";
    let _alone = ALONE.lock().await;
    let world = World::new();
    let edge_config = |token: &str| {
        let link = format!("plaintext = true\ntoken = \"{token}\"");
        world.edge_config("0", "photo-v0", &link)
    };
    let edge = world.start("proxy-edge", "edge.toml", &edge_config("first"));
    edge.ready().await;
    let url = format!("http://{}", edge.program.address("data"));
    let bundle = sidecod_bench::stack::workspace().join("onnx/codecs/photo-v0");
    let codec = format!("bundle = {}", quoted(&bundle));
    let device_config = |token: &str, more: &str| {
        let link = format!("plaintext = true\ntoken = \"{token}\"\n{more}");
        world.device_config(&url, &codec, &link)
    };
    let device = world.start("proxy-device", "device.toml", &device_config("first", ""));
    device.ready().await;
    world.ask(&device).await;
    assert_eq!(device.outcome("code").await, 1.0);

    // An app that goes on asking, over one connection that is kept open.
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let asking = tokio::spawn({
        let (stop, answered, client) = (stop.clone(), answered.clone(), world.client.clone());
        let url = format!("http://{}{PATH}", device.program.address("reverse"));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = client
                    .post(&url, "text/plain", Bytes::from_static(b"no photo"))
                    .await;
                let answer = answer.expect("an answer");
                assert!(
                    !answer.headers().contains_key("sidecod-error"),
                    "{answer:?}"
                );
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    });

    // Both change their token: the file is noticed by itself, or by a signal.
    edge.rewrite(&edge_config("second"));
    until("the edge's reload", async || {
        reloads(&edge, EDGE, "applied").await >= 1.0
    })
    .await;
    device.rewrite(&device_config("second", ""));
    hang_up(&device);
    until("the device's reload", async || {
        reloads(&device, DEVICE, "applied").await >= 1.0
    })
    .await;
    let before = device.outcome("code").await;
    world.ask(&device).await;
    assert_eq!(
        device.outcome("code").await,
        before + 1.0,
        "{}",
        device.log()
    );

    // What is wrong is said with file, line and key, and the old one stays in use.
    device.rewrite(&device_config("second", "upstraem = \"x\""));
    until("a refusal", async || {
        reloads(&device, DEVICE, "refused").await >= 1.0
    })
    .await;
    let log = device.log();
    assert!(
        log.contains("device.toml:") && log.contains("unknown field `upstraem`"),
        "{log}"
    );
    edge.rewrite("listen = ");
    until("a refusal", async || {
        reloads(&edge, EDGE, "refused").await >= 1.0
    })
    .await;
    assert!(edge.log().contains("edge.toml:1:"), "{}", edge.log());
    let before = device.outcome("code").await;
    world.ask(&device).await;
    assert_eq!(
        device.outcome("code").await,
        before + 1.0,
        "{}",
        device.log()
    );

    // What needs a restart is said.
    let moved =
        device_config("second", "").replace("admin = \"127.0.0.1:0\"", "admin = \"127.0.0.1:9\"");
    device.rewrite(&moved);
    device.says("change only with a restart").await;
    assert!(device.log().contains("admin"), "{}", device.log());

    let so_far = answered.load(Ordering::Relaxed);
    until("more answers", async || {
        answered.load(Ordering::Relaxed) > so_far
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    asking.await.expect("every request was answered");
}
