//! The three programs of the demo, started on free ports and stopped again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::client::Client;
use crate::netns::Namespace;

/// A running program that says where it listens.
pub struct Program {
    name: &'static str,
    child: Child,
    arguments: Vec<String>,
    addresses: HashMap<String, String>,
}

impl Program {
    /// Starts a program that stands beside this one, and waits for the line in which it says where
    /// it listens.
    ///
    /// # Errors
    /// If it is not there, does not start, or ends before it listens.
    pub fn start(name: &'static str, arguments: &[String]) -> Result<Self> {
        let path = program(name)?;
        Self::start_as(name, Command::new(path), arguments)
    }

    /// The same in a network namespace.
    ///
    /// # Errors
    /// As [`Program::start`].
    pub fn start_in(
        namespace: &Namespace,
        name: &'static str,
        arguments: &[String],
    ) -> Result<Self> {
        let command = namespace.command(program(name)?);
        Self::start_as(name, command, arguments)
    }

    /// The same by a command that names the program, and may say where its log goes.
    ///
    /// # Errors
    /// As [`Program::start`].
    pub fn start_as(
        name: &'static str,
        mut command: Command,
        arguments: &[String],
    ) -> Result<Self> {
        let mut child = command
            .args(arguments)
            .current_dir(workspace())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("cannot start {name}: build it with `cargo build --release --workspace`")
            })?;
        let output = child.stdout.take().context("a piped output")?;
        let mut lines = BufReader::new(output).lines();
        let addresses = loop {
            let Some(line) = lines.next().transpose()? else {
                bail!("{name} ended before it listened: {}", child.wait()?);
            };
            if let Some(addresses) = line.strip_prefix("listening ") {
                break addresses
                    .split_whitespace()
                    .map(|word| word.split_once('=').unwrap_or(("data", word)))
                    .map(|(role, address)| (role.to_owned(), address.to_owned()))
                    .collect();
            }
        };
        // Whatever it prints later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self {
            name,
            child,
            arguments: arguments.to_vec(),
            addresses,
        })
    }

    /// The address of a listener: `data` or `admin`; `reverse`, `forward` or `transparent` of the
    /// device sidecar.
    ///
    /// # Panics
    /// If the program has not named such a listener.
    #[must_use]
    pub fn address(&self, role: &str) -> &str {
        self.addresses
            .get(role)
            .unwrap_or_else(|| panic!("{} has no {role} listener", self.name))
    }

    /// The arguments that it was started with.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, such as `STOP`.
    ///
    /// # Errors
    /// If the system does not.
    pub fn signal(&self, name: &str) -> Result<()> {
        let arguments = ["-s", name, &self.child.id().to_string()];
        let status = Command::new("kill").args(arguments).status()?;
        ensure!(status.success(), "{}: cannot send SIG{name}", self.name);
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// If it has to be killed, or ends with an error.
    pub fn stop(mut self) -> Result<()> {
        Command::new("kill")
            .arg(self.child.id().to_string())
            .status()?;
        let deadline = Instant::now() + Duration::from_secs(15);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() {
                    Ok(())
                } else {
                    bail!("{} ended with {status}", self.name)
                };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{} did not end within 15 s of SIGTERM", self.name)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Model server, edge sidecar and device sidecar.
pub struct Stack {
    /// The model server.
    pub server: Program,
    /// The edge sidecar.
    pub edge: Program,
    /// The device sidecar.
    pub device: Program,
}

impl Stack {
    /// Starts all three and waits until they are ready. `device` and `edge` are more arguments for
    /// the sidecars, such as `--set` and its value.
    ///
    /// # Errors
    /// If one does not start or is not ready within two minutes.
    pub async fn start(device: &[&str], edge: &[&str]) -> Result<Self> {
        let more: Vec<String> = edge.iter().map(ToString::to_string).collect();
        Self::start_with(device, |_| more).await
    }

    /// The same, with arguments of the edge that are made when the model server's address is known.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub async fn start_with(
        device: &[&str],
        edge: impl FnOnce(&str) -> Vec<String>,
    ) -> Result<Self> {
        let any_port = "\"127.0.0.1:0\"";

        let server = Program::start(
            "model-server",
            &["--listen".to_owned(), "127.0.0.1:0".to_owned()],
        )?;
        let server_url = format!("\"http://{}\"", server.address("data"));

        let mut arguments = vec!["--config".to_owned(), config_of("proxy-edge.toml")];
        arguments.extend(set("listen", any_port));
        arguments.extend(set("admin", any_port));
        arguments.extend(set(
            "upstream",
            &format!("[{{ name = \"default\", url = {server_url} }}]"),
        ));
        arguments.extend(edge(server.address("data")));
        let edge = Program::start("proxy-edge", &arguments)?;

        let mut arguments = vec!["--config".to_owned(), config_of("proxy-device.toml")];
        arguments.extend(set("listen.reverse", &format!("[{any_port}]")));
        arguments.extend(set("admin", any_port));
        arguments.extend(set("direct", &server_url));
        arguments.extend(set(
            "edge.url",
            &format!("\"http://{}\"", edge.address("data")),
        ));
        arguments.extend(device.iter().map(ToString::to_string));
        let device = Program::start("proxy-device", &arguments)?;

        let stack = Self {
            server,
            edge,
            device,
        };
        stack.ready().await?;
        Ok(stack)
    }

    async fn ready(&self) -> Result<()> {
        for (program, role, path) in [
            (&self.server, "data", "/health"),
            (&self.edge, "admin", "/ready"),
            (&self.device, "admin", "/ready"),
        ] {
            ready(&format!("http://{}{path}", program.address(role))).await?;
        }
        linked(&self.device).await
    }
}

/// Waits until a URL answers with success.
///
/// # Errors
/// If it has not within two minutes.
pub async fn ready(url: &str) -> Result<()> {
    let client = Client::default();
    until(url, PATIENCE, async || {
        let answer = client.get(url).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    })
    .await
}

/// Waits until the device sidecar has a connection to an edge that it uses. It is ready without one.
///
/// # Errors
/// If it has none within two minutes.
pub async fn linked(device: &Program) -> Result<()> {
    let client = Client::default();
    let page = format!("http://{}/metrics", device.address("admin"));
    until("a connection to an edge", PATIENCE, async || {
        let up = client.metric(&page, "sidecod_device_edge_up", &[]).await;
        up.is_ok_and(|up| up > 0.5)
    })
    .await
}

/// Time that programs may take to get ready.
const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until something is so.
///
/// # Errors
/// If it is not in time.
pub async fn until(what: &str, limit: Duration, mut so: impl AsyncFnMut() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !so().await {
        ensure!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// An example configuration's path, as an argument.
#[must_use]
pub fn config_of(name: &str) -> String {
    let path = workspace().join("examples/demo").join(name);
    path.display().to_string()
}

/// The arguments that set a key.
#[must_use]
pub fn set(key: &str, value: &str) -> [String; 2] {
    ["--set".to_owned(), format!("{key}={value}")]
}

/// A port that was free a moment ago.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// The root of the source tree, where the example configurations stand and paths in them start.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// A program in the folder of this one, or in the folder above it (tests lie one deeper).
///
/// # Errors
/// If it is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("where this program stands")?;
    this.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("no {name} beside {}", this.display()))
}
