//! Each step of the failure ladder with the real programs: whatever breaks, and at whatever moment of
//! a request, the app gets the model's answer or a documented error.
//!
//! One test for each way in which things break; `failures/` has what they share.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test fails by panicking

#[path = "failures/mod.rs"]
mod bench;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use bench::{Bench, Says as _, from_sidecar};
use sidecod_bench::chaos::relay::Mode;
use sidecod_bench::netns::Namespace;
use sidecod_bench::stack::{Program, config_of, program, workspace};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_is_killed_before_a_request() {
    let mut bench = Bench::start(&[], &[]).await;
    bench.site.edge.kill();
    bench.by_model().await;
    assert_eq!(bench.outcomes("fallback_direct").await, 1);
    // Started again, it is used again without anybody's doing.
    bench.site.edge.start().unwrap();
    bench.until_coded().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_is_killed_during_an_upload() {
    let mut bench = Bench::start(&[], &[]).await;
    bench.by_model().await;
    // The upload stands still on the link.
    bench.site.link.set(Mode::BlackHole);
    let request = bench.begin();
    bench.until_link_holds().await;
    bench.site.edge.kill();
    bench.site.link.set(Mode::Pass);
    request.await.unwrap().by_model();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_is_killed_while_it_decodes() {
    // A large photo takes seconds on a CPU.
    let mut bench = Bench::start(&[], &[]).await;
    let request = bench.begin_large();
    bench.until_edge("sidecod_edge_in_flight", 1.0).await;
    bench.site.edge.kill();
    request.await.unwrap().by_model();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_is_killed_while_the_model_works() {
    let mut bench = Bench::start(&[], &[]).await;
    bench.site.server.freeze().unwrap();
    let request = bench.begin();
    bench.until_edge_has_decoded().await;
    bench.site.edge.kill();
    bench.site.server.thaw().unwrap();
    request.await.unwrap().by_model();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_is_frozen() {
    let bench = Bench::start(&[], &[]).await;
    bench.by_model().await;
    bench.site.edge.freeze().unwrap();
    // The first finds out by the pings of the connection; those after it do not have to.
    for _ in 0..3 {
        bench.by_model().await;
    }
    assert_eq!(bench.outcomes("fallback_direct").await, 3);
    bench.site.edge.thaw().unwrap();
    bench.until_coded().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_is_reset_in_the_middle_of_a_request() {
    let bench = Bench::start(&[], &[]).await;
    bench.site.server.freeze().unwrap();
    let request = bench.begin();
    bench.until_edge_has_decoded().await;
    bench.site.link.reset();
    bench.site.server.thaw().unwrap();
    request.await.unwrap().by_model();
    assert_eq!(bench.outcomes("error").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_swallows_everything() {
    let bench = Bench::start(&[], &[]).await;
    bench.by_model().await;
    bench.site.link.set(Mode::BlackHole);
    bench.by_model().await;
    bench.site.link.set(Mode::Pass);
    sleep(Duration::from_millis(10)).await;
    bench.until_coded().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_not_be_sent_again_gets_an_error() {
    let mut bench = Bench::start(&["--set", bench::ONCE], &[]).await;
    bench.site.server.freeze().unwrap();
    let request = bench.begin();
    bench.until_edge_has_decoded().await;
    bench.site.edge.kill();
    bench.site.server.thaw().unwrap();
    let answer = request.await.unwrap();
    assert_eq!(from_sidecar(&answer), (502, "edge-unreachable"));
    assert!(bench.worked() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_server_is_down() {
    let mut bench = Bench::start(&[], &[]).await;
    bench.site.server.kill();
    let answer = bench.begin().await.unwrap();
    assert_eq!(from_sidecar(&answer), (502, "upstream-unreachable"));
    bench.site.server.start().unwrap();
    bench.by_model().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_server_is_slow() {
    let bench = Bench::start(&["--set", bench::SHORT], &[]).await;
    bench.site.server.freeze().unwrap();
    let answer = bench.begin().await.unwrap();
    let (status, kind) = from_sidecar(&answer);
    assert_eq!(status, 504);
    assert!(["upstream-timeout", "timeout"].contains(&kind), "{kind}");
    bench.site.server.thaw().unwrap();
    bench.by_model().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_server_answers_garbage() {
    let garbage = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = garbage.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in garbage.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n");
        }
    });
    let upstream = format!("upstream=[{{name=\"default\",url=\"http://{address}\"}}]");
    let direct = format!("direct=\"http://{address}\"");
    let bench = Bench::start_as(&["--set", &direct], &["--set", &upstream]).await;
    let (status, kind) = {
        let answer = bench.begin().await.unwrap();
        let (status, kind) = from_sidecar(&answer);
        (status, kind.to_owned())
    };
    assert_eq!((status, &kind[..]), (502, "upstream-broken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_full() {
    let edge = ["--set", "max_frames=1", "--set", "decode_queue=1"];
    let device = ["--set", "codec.queue=1", "--set", "max_held_mib=1"];
    let bench = Bench::start(&device, &edge).await;
    let requests: Vec<_> = (0..24).map(|_| bench.begin()).collect();
    for request in requests {
        request.await.unwrap().by_model();
    }
    let crossed = bench.outcomes("passthrough").await + bench.outcomes("fallback_edge").await;
    assert!(crossed > 0, "no queue was ever full");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_descriptors_run_out() {
    let bench = Bench::start(&[], &[]).await;
    // Fewer than there are connections.
    bench.limit_files_of_device(60);
    let idle: Vec<_> = (0..100).map(|_| bench.connect()).collect();
    let request = bench.begin();
    sleep(Duration::from_millis(500)).await;
    drop(idle);
    request.await.unwrap().by_model();
    bench.by_model().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_edges_share_the_work_and_one_may_die() {
    let mut bench = Bench::start_with_two_edges().await;
    bench.until_both_edges_work().await;
    bench.site.edge.kill();
    for _ in 0..6 {
        bench.by_model().await;
    }
    assert_eq!(bench.outcomes("fallback_direct").await, 0);
    bench.site.edge.start().unwrap();
    bench.until_edge_up(2.0).await;
}

/// Needs root, iproute2, iptables and curl; without them it fails.
#[tokio::test(flavor = "multi_thread")]
async fn packets_are_dropped() {
    let near = Namespace::new("drop-near").unwrap();
    let far = Namespace::new("drop-far").unwrap();
    Namespace::link(
        (&near, "to-far", ["10.78.1.1/24", "fd78:1::1/64"]),
        (&far, "to-near", ["10.78.1.2/24", "fd78:1::2/64"]),
    )
    .unwrap();
    let start = |host: &Namespace, name, config: Option<&str>, sets: &[&str]| {
        let config = config.map(|name| ["--config".to_owned(), config_of(name)]);
        let sets = sets
            .iter()
            .flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        let mut arguments: Vec<_> = config.into_iter().flatten().chain(sets).collect();
        if name == "model-server" {
            arguments = vec!["--listen".to_owned(), "0.0.0.0:8500".to_owned()];
        }
        Program::start_in(host, name, &arguments).unwrap()
    };
    let _server = start(&near, "model-server", None, &[]);
    let _edge = start(
        &far,
        "proxy-edge",
        Some("proxy-edge.toml"),
        &[
            "listen=0.0.0.0:7100",
            "upstream=[{name=\"default\",url=\"http://10.78.1.1:8500\"}]",
        ],
    );
    let _device = start(
        &near,
        "proxy-device",
        Some("proxy-device.toml"),
        &["edge.url=http://10.78.1.2:7100"],
    );
    let curl = |arguments: &[&str]| {
        let output = near
            .command("curl")
            .args(["-sS", "--max-time", "150"])
            .args(arguments)
            .current_dir(workspace())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let ask = || {
        let answer = curl(&[
            "-H",
            "content-type: image/jpeg",
            "--data-binary",
            "@examples/photos/goldfish.jpg",
            "http://127.0.0.1:7000/predictions/efficientnet-lite0",
        ]);
        assert!(answer.contains("goldfish"), "{answer}");
    };
    let ended = |outcome: &str| {
        let metrics = curl(&["http://127.0.0.1:7001/metrics"]);
        let label = format!("outcome=\"{outcome}\"");
        metrics
            .lines()
            .any(|line| line.starts_with("sidecod_device_requests_total") && line.contains(&label))
    };
    let until = |outcome: &str| {
        let begin = Instant::now();
        while !ended(outcome) {
            assert!(
                begin.elapsed() < bench::LONG,
                "no request ended as {outcome}"
            );
            ask();
        }
    };
    let firewall = |change: &str| {
        let status = far
            .command("iptables")
            .args([change, "INPUT", "-i", "to-near", "-j", "DROP"])
            .status();
        assert!(status.unwrap().success());
    };
    until("code");
    firewall("-I");
    ask();
    assert!(ended("fallback_direct"));
    firewall("-D");
    let linked = || {
        let metrics = curl(&["http://127.0.0.1:7001/metrics"]);
        let up = "sidecod_device_edge_up{edge=\"10.78.1.2:7100\"} 1";
        metrics.lines().any(|line| line == up)
    };
    let begin = Instant::now();
    while !linked() {
        assert!(begin.elapsed() < bench::LONG, "the edge is not found again");
        sleep(Duration::from_millis(100)).await;
    }
    ask();
}

#[test]
fn a_damaged_bundle_is_named() {
    let bundle = workspace().join("onnx/codecs/photo-v0");
    for (name, config, key, files) in [
        (
            "proxy-device",
            "proxy-device.toml",
            "codec.bundle",
            ["encoder.onnx", "tables.bin", "manifest.json"],
        ),
        (
            "proxy-edge",
            "proxy-edge.toml",
            "bundles",
            ["decoder.pt", "tables.bin", "manifest.json"],
        ),
    ] {
        for file in files {
            for damage in ["missing", "cut", "changed"] {
                let folder = tempfile::tempdir().unwrap();
                for entry in std::fs::read_dir(&bundle).unwrap() {
                    let path = entry.unwrap().path();
                    std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
                }
                let path = folder.path().join(file);
                let mut bytes = std::fs::read(&path).unwrap();
                match damage {
                    "missing" => std::fs::remove_file(&path).unwrap(),
                    "cut" => std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
                    _ => {
                        // A digit of a digest, in the manifest.
                        let at = bytes.len() - 20;
                        bytes[at] ^= 1;
                        std::fs::write(&path, bytes).unwrap();
                    }
                }
                let folder = folder.path().display();
                let value = match key {
                    "bundles" => format!("bundles=[\"{folder}\"]"),
                    _ => format!("{key}=\"{folder}\""),
                };
                let output = Command::new(program(name).unwrap())
                    .args(["--config", &config_of(config), "--set", &value])
                    .current_dir(workspace())
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                let case = format!("{name}, {file} {damage}: {said}");
                assert!(!output.status.success(), "{case}");
                assert!(said.contains(file) || said.contains("manifest"), "{case}");
            }
        }
    }
}
