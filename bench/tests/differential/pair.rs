//! The two programs in front of a server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sidecod_bench::client::Client;
use sidecod_bench::stack::{Program, workspace};

/// Both sidecars in front of a server.
pub struct Pair {
    pub edge: Program,
    pub device: Program,
}

impl Pair {
    /// Starts them with the demo's configuration, and waits until they are ready.
    pub async fn start(server: SocketAddr) -> Self {
        let arguments = |config: &str, sets: &[String]| {
            let config = workspace().join("examples/demo").join(config);
            let mut arguments = vec!["--config".to_owned(), config.display().to_string()];
            for set in sets {
                arguments.extend(["--set".to_owned(), set.clone()]);
            }
            arguments.extend(["--set".to_owned(), "admin=\"127.0.0.1:0\"".to_owned()]);
            arguments
        };
        let sets = [
            "listen=\"127.0.0.1:0\"".to_owned(),
            format!("upstream=[{{name='default', url='http://{server}'}}]"),
        ];
        let edge =
            Program::start("proxy-edge", &arguments("proxy-edge.toml", &sets)).expect("an edge");
        let sets = [
            "listen.reverse=[\"127.0.0.1:0\"]".to_owned(),
            format!("direct='http://{server}'"),
            format!("edge.url='http://{}'", edge.address("data")),
        ];
        let device = arguments("proxy-device.toml", &sets);
        let device = Program::start("proxy-device", &device).expect("a device");
        let pair = Self { edge, device };
        let client = Client::default();
        let deadline = Instant::now() + Duration::from_mins(2);
        for program in [&pair.edge, &pair.device] {
            let url = format!("http://{}/ready", program.address("admin"));
            while !client
                .get(&url)
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                assert!(Instant::now() < deadline, "{url}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        pair
    }

    /// Where apps connect.
    pub fn address(&self) -> SocketAddr {
        self.device.address("reverse").parse().expect("an address")
    }
}
