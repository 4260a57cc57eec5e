//! The two programs in front of a server.

use std::net::SocketAddr;

use sidecod_bench::stack::{Program, ready, workspace};

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
        for program in [&pair.edge, &pair.device] {
            let url = format!("http://{}/ready", program.address("admin"));
            ready(&url).await.expect("a sidecar that is ready");
        }
        pair
    }

    /// Where apps connect.
    pub fn address(&self) -> SocketAddr {
        self.device.address("reverse").parse().expect("an address")
    }
}
