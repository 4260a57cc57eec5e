//! A device with only the edge's URL: the bundle is fetched by its digest, kept, and changed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::ALONE;
use super::programs::{World, quoted, until};

const PLAINTEXT: &str = "plaintext = true";

#[tokio::test]
async fn the_device_uses_the_bundle_that_the_edge_has() {
    let _alone = ALONE.lock().await;
    let world = World::new();
    let cache = world.file("cache");
    let codec = format!("cache = {}", quoted(&cache));

    // The edge is not there yet: the device starts, passes through, and says what it waits for.
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = reserved.local_addr().unwrap().port().to_string();
    drop(reserved);
    let device_config = world.device_config(&format!("http://127.0.0.1:{port}"), &codec, PLAINTEXT);
    let device = world.start("proxy-device", "device.toml", &device_config);
    world.ask(&device).await;
    assert_eq!(device.outcome("fallback_direct").await, 1.0);
    assert_eq!(device.readiness().await, "waiting for: the edge's bundle\n");

    // Now it is.
    let edge_config = |bundle: &str| world.edge_config(&port, bundle, PLAINTEXT);
    let edge = world.start("proxy-edge", "edge.toml", &edge_config("photo-v0"));
    edge.ready().await;
    device.ready().await;
    until("a code", async || {
        world.ask(&device).await;
        device.outcome("code").await >= 1.0
    })
    .await;
    let kept = || fs::read_dir(&cache).unwrap().count();
    until("a kept bundle", async || kept() == 1).await;

    // The edge comes back with another bundle: it refuses frames of the old one, the requests get
    // their answer all the same, and the device changes to the new one by itself.
    edge.program.stop().unwrap();
    let edge = world.start("proxy-edge", "edge.toml", &edge_config("photo"));
    edge.ready().await;
    let before = device.outcome("code").await;
    until("a code of the new bundle", async || {
        world.ask(&device).await;
        device.outcome("code").await >= before + 1.0
    })
    .await;
    assert!(
        device
            .metric("sidecod_device_bundle_refused_total", "")
            .await
            >= 1.0
    );
    assert_eq!(device.outcome("error").await, 0.0);
    until("another kept bundle", async || kept() == 2).await;
    device.program.stop().unwrap();

    // A damaged cache costs a download.
    for bundle in fs::read_dir(&cache).unwrap() {
        fs::write(bundle.unwrap().path().join("encoder.onnx"), b"damaged").unwrap();
    }
    let device = world.start("proxy-device", "device.toml", &device_config);
    device.ready().await;
    device.says("a cached bundle is damaged, and removed").await;
    world.ask(&device).await;
    assert_eq!(device.outcome("code").await, 1.0, "{}", device.log());
    device.program.stop().unwrap();

    // With a cache the device is ready without an edge.
    edge.program.stop().unwrap();
    let device = world.start("proxy-device", "device.toml", &device_config);
    device.ready().await;
    world.ask(&device).await;
    assert_eq!(device.outcome("fallback_direct").await, 1.0);
    device.program.stop().unwrap();
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_costs_nothing_but_a_download() {
    let _alone = ALONE.lock().await;
    let world = World::new();
    let edge = world.start(
        "proxy-edge",
        "edge.toml",
        &world.edge_config("0", "photo-v0", PLAINTEXT),
    );
    edge.ready().await;
    let url = format!("http://{}", edge.program.address("data"));
    let full = FullDisk::mount(&world);
    for cache in ["/dev/null/cache", &full.0.display().to_string()] {
        let codec = format!("cache = {cache:?}");
        let device = world.start(
            "proxy-device",
            "device.toml",
            &world.device_config(&url, &codec, PLAINTEXT),
        );
        device.ready().await;
        device.says("the bundle cannot be kept on disk").await;
        world.ask(&device).await;
        assert_eq!(device.outcome("code").await, 1.0, "{}", device.log());
    }
}

/// A file system with room for less than a bundle. Needs root.
struct FullDisk(PathBuf);

impl FullDisk {
    fn mount(world: &World) -> Self {
        let folder = world.file("disk");
        fs::create_dir(&folder).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4k", "none"])
            .arg(&folder)
            .status();
        assert!(mount.unwrap().success());
        Self(folder)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
