//! The programs at both ends of the link.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Options;
use super::link::FAR;
use crate::client::Client;
use crate::fidelity::points;
use crate::netns::Namespace;
use crate::stack::{self, Program, linked, ready, workspace};

/// Options that keep about as much of the model's answers as each other (docs/codec.md), beside the
/// bundle at this quality.
const QUALITY: &str = "q4";
const OPTIONS: [&str; 3] = ["webp:80", "jpeg:75", "passthrough"];
/// The header in which a request names its option.
pub(super) const FORCE: &str = "x-option";
const PATH: &str = "/predictions/efficientnet-lite0";

/// What a request is sent through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Method {
    /// Both sidecars, with this option.
    Fixed(String),
    /// Both sidecars, with the option that the plan chooses.
    Plan,
    /// No sidecar: the app's JPEG.
    DirectJpeg,
    /// No sidecar: the model's input as floats.
    DirectTensor,
}

impl Method {
    /// Its name in tables.
    pub fn name(&self) -> &str {
        match self {
            Self::Fixed(option) => option,
            Self::Plan => "plan",
            Self::DirectJpeg => "direct jpeg",
            Self::DirectTensor => "direct tensor",
        }
    }
}

/// Model server and edge sidecar at the far end, two device sidecars here: what one learns from
/// requests whose option is forced is not the other's.
pub(super) struct Programs {
    server: Program,
    edge: Program,
    fixed: Program,
    plan: Program,
    options: Vec<String>,
    pub client: Client,
}

impl Programs {
    /// Starts them and waits until they are ready.
    pub async fn start(far: &Namespace, options: &Options) -> Result<Self> {
        let profile = |name: &str| {
            // The programs run in another folder.
            let folder = std::path::absolute(options.profiles.as_ref()?).ok()?;
            let file = folder.join(name);
            Some(format!("{:?}", file.display().to_string()))
        };
        let listen = format!("{FAR}:8500");
        let server = Program::start_in(far, "model-server", &["--listen".to_owned(), listen])?;
        let server_url = format!("http://{}", server.address("data"));
        let mut arguments = config("proxy-edge.toml");
        set(&mut arguments, "listen", &format!("\"{FAR}:0\""));
        set(&mut arguments, "admin", &format!("\"{FAR}:0\""));
        let upstream = format!("[{{ name = \"default\", url = \"{server_url}\" }}]");
        set(&mut arguments, "upstream", &upstream);
        if let Some(file) = profile("proxy-edge.profile.json") {
            set(&mut arguments, "profile", &file);
        }
        let points = match &options.points {
            Some(folder) => points::folders(&std::path::absolute(folder)?)?,
            None => Vec::new(),
        };
        let codec = std::path::absolute(&options.codec)?;
        let bundles: Vec<&PathBuf> = std::iter::once(&codec).chain(&points).collect();
        set(&mut arguments, "bundles", &format!("{bundles:?}"));
        let edge = Program::start_in(far, "proxy-edge", &arguments)?;

        let names: Vec<String> = if options.options.is_empty() {
            let name = codec.file_name().unwrap_or_default().display();
            std::iter::once(format!("{name}:{QUALITY}"))
                .chain(OPTIONS.map(ToOwned::to_owned))
                .collect()
        } else {
            options.options.clone()
        };
        let mut arguments = config("proxy-device.toml");
        set(&mut arguments, "listen.reverse", "[\"127.0.0.1:0\"]");
        set(&mut arguments, "admin", "\"127.0.0.1:0\"");
        set(&mut arguments, "direct", &format!("\"{server_url}\""));
        let edge_url = format!("\"http://{}\"", edge.address("data"));
        set(&mut arguments, "edge.url", &edge_url);
        set(
            &mut arguments,
            "codec.bundle",
            &format!("\"{}\"", codec.display()),
        );
        set(&mut arguments, "codec.heads", &format!("{points:?}"));
        set(&mut arguments, "plan.force_header", &format!("\"{FORCE}\""));
        if let Some(file) = profile("proxy-device.profile.json") {
            set(&mut arguments, "plan.profile", &file);
        }
        let route = format!(
            "[{{ name = \"classify\", path = \"/predictions/*\", timeout_ms = 120000, options = {names:?} }}]"
        );
        set(&mut arguments, "route", &route);
        let start = || Program::start("proxy-device", &arguments);
        let programs = Self {
            fixed: start()?,
            plan: start()?,
            server,
            options: names,
            client: Client::default(),
            edge,
        };
        for (program, role, path) in [
            (&programs.server, "data", "/health"),
            (&programs.edge, "admin", "/ready"),
            (&programs.fixed, "admin", "/ready"),
            (&programs.plan, "admin", "/ready"),
        ] {
            ready(&format!("http://{}{path}", program.address(role))).await?;
        }
        for device in [&programs.fixed, &programs.plan] {
            linked(device).await?;
        }
        Ok(programs)
    }

    /// Names of the options.
    pub fn options(&self) -> &[String] {
        &self.options
    }

    /// All methods, in the order in which they take turns.
    pub fn methods(&self) -> Vec<Method> {
        let fixed = self.options.iter().cloned().map(Method::Fixed);
        let others = [Method::Plan, Method::DirectJpeg, Method::DirectTensor];
        fixed.chain(others).collect()
    }

    /// Where a method sends requests.
    pub fn url(&self, method: &Method) -> String {
        let address = match method {
            Method::Fixed(_) => self.fixed.address("reverse"),
            Method::Plan => self.plan.address("reverse"),
            Method::DirectJpeg | Method::DirectTensor => self.server.address("data"),
        };
        format!("http://{address}{PATH}")
    }

    /// Where a device's plan is told.
    pub fn plan_url(&self, method: &Method) -> Option<String> {
        let device = match method {
            Method::Fixed(_) => &self.fixed,
            Method::Plan => &self.plan,
            _ => return None,
        };
        Some(format!("http://{}/plan", device.address("admin")))
    }
}

fn config(name: &str) -> Vec<String> {
    let file = workspace().join(Path::new("examples/demo")).join(name);
    vec!["--config".to_owned(), file.display().to_string()]
}

fn set(arguments: &mut Vec<String>, key: &str, value: &str) {
    arguments.extend(stack::set(key, value));
}
