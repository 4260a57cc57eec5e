//! The system's clock jumps while both programs run. Needs the Debian package libfaketime.

use std::fs;
use std::process::Command;

use sidecod_bench::stack::free_port;

use super::ALONE;
use super::programs::{Sidecar, World, until};
use super::tls::{client_tls, local, server_tls};

/// What certificates live, and a little more.
const PAST_THE_END: &str = "+400d";
const BEFORE_THE_BEGIN: &str = "-400d";

struct Clock<'a>(&'a World);

impl Clock<'_> {
    /// Sets the clock of both programs, relative to the right one.
    fn set(&self, offset: &str) {
        fs::write(self.0.file("clock"), offset).unwrap();
    }

    fn start(&self, name: &'static str, file: &str, config: &str) -> Sidecar {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
        assert!(
            fs::exists(library).unwrap(),
            "no libfaketime: apt-get install libfaketime"
        );
        let clock = self.0.file("clock");
        self.0
            .start_with(name, file, config, |command: &mut Command| {
                command
                    .env("LD_PRELOAD", library)
                    .env("FAKETIME_TIMESTAMP_FILE", clock)
                    .env("FAKETIME_NO_CACHE", "1")
                    .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            })
    }
}

#[tokio::test]
async fn a_clock_that_jumps_costs_no_request() {
    let _alone = ALONE.lock().await;
    let world = World::new();
    let (good, said) = world.run("proxy-edge", &["cert", "--name", "localhost"]);
    assert!(good, "{said}");
    let clock = Clock(&world);
    clock.set("+0");
    let port = free_port().unwrap().to_string();
    let config = world.edge_config(&port, "photo-v0", &server_tls(&world, "edge", true));
    let edge = clock.start("proxy-edge", "edge.toml", &config);
    edge.ready().await;
    let identity = client_tls(&world, "certs/device.pem");
    let url = format!("https://localhost:{port}");
    let device = world.device_config(&url, &local(), &identity);
    let device = clock.start("proxy-device", "device.toml", &device);
    let coded = async || {
        let before = device.outcome("code").await;
        world.ask(&device).await;
        device.outcome("code").await > before
    };
    until("a coded photo", coded).await;

    // The connection is open, and time limits know nothing of the clock.
    for offset in [PAST_THE_END, BEFORE_THE_BEGIN, PAST_THE_END] {
        clock.set(offset);
        assert!(coded().await, "{offset}: {}", device.log());
    }

    // A new connection is refused, because the certificates have ended by this clock.
    drop(edge);
    let edge = clock.start("proxy-edge", "edge.toml", &config);
    edge.ready().await;
    assert!(!coded().await, "{}", device.log());
    device.says("certificate has expired").await;
    clock.set("+0");
    until("a coded photo", coded).await;
    assert_eq!(device.outcome("error").await, 0.0);
}
