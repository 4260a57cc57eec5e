//! The pages of the admin ports in a real browser, under real traffic: `make page`.

#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::path::Path;
use std::process::Command;

use http::StatusCode;
use sidecod_bench::client::Client;
use sidecod_bench::stack::{Program, Stack, workspace};

const PATH: &str = "/predictions/efficientnet-lite0";

/// What the page has become in Chromium, which also draws it into a PNG. The browser's clock runs as
/// fast as the page lets it.
fn visit(program: &Program, image: &Path, more: &[&str]) -> String {
    let url = format!("http://{}/", program.address("admin"));
    let profile = tempfile::tempdir().expect("a folder");
    let run = |what: &str| {
        let output = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .args(["--window-size=1100,1500", "--virtual-time-budget=9000"])
            .args(["--enable-logging=stderr", "--no-first-run"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(more)
            .args([what, &url])
            .output()
            .expect("chromium: install the Debian package, and use make page");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        // A policy that forbids what the page does is told there, and so is a fault of its script.
        let console: Vec<_> = log
            .lines()
            .filter(|line| line.contains("CONSOLE"))
            .collect();
        assert!(console.is_empty(), "{console:#?}");
        assert!(output.status.success(), "{log}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shot = format!("--screenshot={}", image.display());
    run(&shot);
    assert!(image.is_file(), "no screenshot");
    run("--dump-dom")
}

#[tokio::test]
#[ignore = "wants Chromium: make page"]
async fn the_pages_show_what_the_programs_do() {
    let route = "route=[{name='classify', path='/predictions/*', quality='q1', timeout_ms=120000, \
                 max_side=256, verify=0.5, min_agreement=0.5}, {name='shelf', path='/shelf', mode='observe'}]";
    let stack = Stack::start(&["--set", route], &[]).await.expect("a stack");
    let client = Client::default();
    let device = format!("http://{}", stack.device.address("reverse"));
    let photos = workspace().join("examples/photos");
    for _ in 0..4 {
        for photo in ["goldfish.jpg", "dam.jpg", "scarlet-macaw.jpg"] {
            let photo = std::fs::read(photos.join(photo)).expect("a photo");
            let target = format!("{device}{PATH}");
            let answer = client.post(&target, "image/jpeg", photo.into()).await;
            assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
        }
    }
    let text = b"no photo".as_slice();
    let target = format!("{device}{PATH}");
    client
        .post(&target, "text/plain", text.into())
        .await
        .expect("an answer");

    let images = workspace().join("target/page");
    std::fs::create_dir_all(&images).expect("a folder for the screenshots");
    let page = visit(&stack.device, &images.join("device.png"), &[]);
    for shows in [
        "requests a second",
        "edge decode",
        "The ladder",
        "offloaded",
        "observed, nothing is sent as a code",
        "floor 50.0 %",
        "no input",
        "Nothing has gone wrong",
    ] {
        assert!(page.contains(shows), "{shows} in {page}");
    }
    let page = visit(&stack.edge, &images.join("edge.png"), &[]);
    for shows in [
        "Model servers",
        "windows decoded together",
        "upstream",
        "ready",
    ] {
        assert!(page.contains(shows), "{shows} in {page}");
    }
    let dark = [
        "--force-dark-mode",
        "--blink-settings=preferredColorScheme=0",
    ];
    visit(&stack.device, &images.join("device-dark.png"), &dark);

    // What breaks is seen.
    stack.edge.stop().expect("the edge drains");
    let photo = std::fs::read(photos.join("dam.jpg")).expect("a photo");
    let answer = client.post(&target, "image/jpeg", photo.into()).await;
    assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    let page = visit(&stack.device, &images.join("edge-gone.png"), &[]);
    assert!(page.contains("fallback direct"), "{page}");
}
