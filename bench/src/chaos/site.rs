//! The programs, on fixed ports, so that each can be killed, frozen and started again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::relay::Relay;
use crate::stack::{Program, config_of, free_port, linked, ready, set};

/// A program that may be running.
pub struct Part {
    name: &'static str,
    arguments: Vec<String>,
    program: Option<Program>,
    /// The running process; 0 is none.
    process: Arc<AtomicU32>,
}

impl Part {
    fn start_new(name: &'static str, arguments: Vec<String>) -> Result<Self> {
        let mut part = Self {
            name,
            arguments,
            program: None,
            process: Arc::default(),
        };
        part.start()?;
        Ok(part)
    }

    /// Starts it again where it has been killed.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(&mut self) -> Result<()> {
        if self.program.is_none() {
            let program = Program::start(self.name, &self.arguments)?;
            self.process.store(program.id(), Ordering::Relaxed);
            self.program = Some(program);
        }
        Ok(())
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.store(0, Ordering::Relaxed);
        self.program = None;
    }

    /// The process that it is at any time; 0 is none.
    #[must_use]
    pub fn process(&self) -> Arc<AtomicU32> {
        self.process.clone()
    }

    /// Stops it where it is (SIGSTOP); its sockets stay open.
    ///
    /// # Errors
    /// If it cannot be sent a signal.
    pub fn freeze(&self) -> Result<()> {
        self.running()?.signal("STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If it cannot be sent a signal.
    pub fn thaw(&self) -> Result<()> {
        self.running()?.signal("CONT")
    }

    /// The running program.
    ///
    /// # Errors
    /// If it is not running.
    pub fn running(&self) -> Result<&Program> {
        self.program
            .as_ref()
            .with_context(|| format!("{} is not running", self.name))
    }
}

/// Model server, edge, link and device.
pub struct Site {
    /// The model server.
    pub server: Part,
    /// The edge sidecar.
    pub edge: Part,
    /// One more, which the link does not lead to, where there are two.
    pub second: Option<Part>,
    /// What the device's connections to the edge go through.
    pub link: Relay,
    /// The device sidecar.
    pub device: Program,
    server_address: String,
}

impl Site {
    /// Starts all of it and waits until it is ready. `journal` is the model server's; `device` and
    /// `edge` are more arguments of the sidecars.
    ///
    /// # Errors
    /// If a program does not start.
    pub async fn start(journal: &Path, device: &[&str], edge: &[&str]) -> Result<Self> {
        Self::start_all(journal, device, edge, false).await
    }

    /// The same with a second edge beside the first.
    ///
    /// # Errors
    /// As [`Site::start`].
    pub async fn start_with_two_edges(journal: &Path) -> Result<Self> {
        Self::start_all(journal, &[], &[], true).await
    }

    async fn start_all(
        journal: &Path,
        device: &[&str],
        edge: &[&str],
        is_second: bool,
    ) -> Result<Self> {
        let server_address = free_address()?;
        let server = server(&server_address, journal)?;
        let (edge, edge_address) = edge_for(&server_address, edge)?;
        let second = is_second.then(|| edge_for(&server_address, &[]));
        let (second, second_address) = second.transpose()?.unzip();
        let link = Relay::start(edge_address.parse()?).await?;
        let addresses = [Some(link.address().to_string()), second_address];
        let urls = addresses.into_iter().flatten();
        let urls: Vec<_> = urls.map(|address| format!("http://{address}")).collect();
        let device = device_for(&server_address, &format!("{urls:?}"), device)?;
        let site = Self {
            server,
            edge,
            second,
            link,
            device,
            server_address,
        };
        site.ready().await?;
        Ok(site)
    }

    /// Waits until every part that is running is ready.
    ///
    /// # Errors
    /// If one is not within two minutes.
    pub async fn ready(&self) -> Result<()> {
        ready(&format!("http://{}/health", self.server_address)).await?;
        for edge in [Some(&self.edge), self.second.as_ref()]
            .into_iter()
            .flatten()
        {
            let admin = edge.running()?.address("admin");
            ready(&format!("http://{admin}/ready")).await?;
        }
        ready(&format!("http://{}/ready", self.device.address("admin"))).await?;
        linked(&self.device).await
    }

    /// Where the model server listens, also while it does not.
    #[must_use]
    pub fn server_address(&self) -> &str {
        &self.server_address
    }
}

fn free_address() -> Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

fn server(address: &str, journal: &Path) -> Result<Part> {
    let journal = journal.display().to_string();
    let arguments = ["--listen", address, "--journal", &journal];
    Part::start_new("model-server", arguments.map(str::to_owned).to_vec())
}

/// An edge that calls this server, and its address.
fn edge_for(server: &str, more: &[&str]) -> Result<(Part, String)> {
    let address = free_address()?;
    let mut arguments = vec!["--config".to_owned(), config_of("proxy-edge.toml")];
    arguments.extend(set("listen", &format!("\"{address}\"")));
    arguments.extend(set("admin", &format!("\"{}\"", free_address()?)));
    let upstream = format!("[{{name=\"default\",url=\"http://{server}\"}}]");
    arguments.extend(set("upstream", &upstream));
    arguments.extend(more.iter().map(ToString::to_string));
    Ok((Part::start_new("proxy-edge", arguments)?, address))
}

fn device_for(server: &str, edges: &str, more: &[&str]) -> Result<Program> {
    let mut arguments = vec!["--config".to_owned(), config_of("proxy-device.toml")];
    arguments.extend(set("listen.reverse", "[\"127.0.0.1:0\"]"));
    arguments.extend(set("admin", "\"127.0.0.1:0\""));
    arguments.extend(set("direct", &format!("\"http://{server}\"")));
    arguments.extend(set("edge.url", edges));
    arguments.extend(more.iter().map(ToString::to_string));
    Program::start("proxy-device", &arguments)
}
