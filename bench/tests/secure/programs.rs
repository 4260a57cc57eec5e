//! Programs with configurations of their own, and their logs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use sidecod_bench::client::Client;
use sidecod_bench::stack::{self, Program, program, workspace};
use tempfile::TempDir;

pub const PATH: &str = "/predictions/efficientnet-lite0";

/// A folder for files, a model server, and an app.
pub struct World {
    folder: TempDir,
    pub server: Program,
    pub client: Client,
}

/// A sidecar with its log.
pub struct Sidecar {
    pub program: Program,
    pub config: PathBuf,
    log: PathBuf,
    client: Client,
}

impl World {
    pub fn new() -> Self {
        let arguments = ["--listen".to_owned(), "127.0.0.1:0".to_owned()];
        Self {
            folder: tempfile::tempdir().unwrap(),
            server: Program::start("model-server", &arguments).unwrap(),
            client: Client::default(),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The address of the model server, as a URL.
    pub fn server(&self) -> String {
        format!("http://{}", self.server.address("data"))
    }

    /// A configuration of proxy-edge; `link` says how the link is protected.
    pub fn edge_config(&self, port: &str, bundle: &str, link: &str) -> String {
        let bundle = workspace().join("onnx/codecs").join(bundle);
        format!(
            "listen = \"127.0.0.1:{port}\"\nadmin = \"127.0.0.1:0\"\nbundles = [{bundle:?}]\n{link}\n\
             [[upstream]]\nname = \"default\"\nurl = \"{}\"\n",
            self.server()
        )
    }

    /// A configuration of proxy-device; `link` is what stands in `[edge]` besides the URL.
    pub fn device_config(&self, edge: &str, codec: &str, link: &str) -> String {
        format!(
            "admin = \"127.0.0.1:0\"\ndirect = \"{}\"\n[listen]\nreverse = [\"127.0.0.1:0\"]\n\
             [codec]\n{codec}\n[[route]]\nname = \"photos\"\npath = \"/predictions/*\"\nmax_side = 256\n\
             timeout_ms = 120_000\n[edge]\nurl = \"{edge}\"\nconnect_timeout_ms = 20_000\n{link}\n",
            self.server()
        )
    }

    pub fn start(&self, name: &'static str, file: &str, config: &str) -> Sidecar {
        self.start_with(name, file, config, |_| {})
    }

    /// The same with a change of the environment, say.
    pub fn start_with(
        &self,
        name: &'static str,
        file: &str,
        config: &str,
        change: impl FnOnce(&mut Command),
    ) -> Sidecar {
        let (config_file, log) = (self.file(file), self.file(&format!("{file}.log")));
        fs::write(&config_file, config).unwrap();
        let mut command = Command::new(program(name).unwrap());
        change(&mut command);
        command.stderr(File::create(&log).unwrap());
        let arguments = ["--config".to_owned(), config_file.display().to_string()];
        Sidecar {
            program: Program::start_as(name, command, &arguments).unwrap(),
            config: config_file,
            log,
            client: self.client.clone(),
        }
    }

    /// Runs a program to its end: whether it did well, and what it said.
    pub fn run(&self, name: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(program(name).unwrap());
        let output = command
            .current_dir(&self.folder)
            .args(arguments)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    /// Sends the photo to a device, and expects the answer that the model server itself gives.
    pub async fn ask(&self, device: &Sidecar) {
        let direct = self.first_class(&self.server()).await;
        let url = format!("http://{}", device.program.address("reverse"));
        assert_eq!(self.first_class(&url).await, direct);
    }

    async fn first_class(&self, base: &str) -> u64 {
        let photo = fs::read(workspace().join("examples/photos/polar-bear.jpg")).unwrap();
        let url = format!("{base}{PATH}");
        let answer = self
            .client
            .post(&url, "image/jpeg", Bytes::from(photo))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        let json: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        json["predictions"][0]["index"].as_u64().unwrap()
    }
}

impl Sidecar {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log says something.
    pub async fn says(&self, text: &str) {
        until(&format!("{text:?} in the log"), async || {
            self.log().contains(text)
        })
        .await;
    }

    fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.program.address("admin"))
    }

    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        self.client
            .metric(&self.admin("/metrics"), name, &[label])
            .await
            .unwrap()
    }

    /// How many requests had this outcome.
    pub async fn outcome(&self, outcome: &str) -> f64 {
        let label = format!("outcome=\"{outcome}\"");
        self.metric("sidecod_device_requests_total", &label).await
    }

    pub async fn readiness(&self) -> String {
        let answer = self.client.get(&self.admin("/ready")).await.unwrap();
        String::from_utf8(answer.body().to_vec()).unwrap()
    }

    pub async fn ready(&self) {
        until("readiness", async || self.readiness().await == "ready\n").await;
    }

    /// Writes the configuration anew.
    pub fn rewrite(&self, config: &str) {
        fs::write(&self.config, config).unwrap();
    }
}

/// Waits for something that another process is about to do.
pub async fn until(what: &str, done: impl AsyncFnMut() -> bool) {
    stack::until(what, Duration::from_mins(3), done)
        .await
        .unwrap();
}

/// A path as TOML.
pub fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
