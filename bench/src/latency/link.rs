//! The link between the namespaces: a veth pair under `tc`, and a relay behind it.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::fidelity::script;
use crate::netns::Namespace;

const NEAR: &str = "10.91.1.1";
const MIDDLE: &str = "10.91.1.2";
const RELAY: &str = "10.91.2.1";
/// Where edge sidecar and model server listen.
pub(super) const FAR: &str = "10.91.2.2";
const NEAR_INTERFACE: &str = "to-middle";
const MIDDLE_INTERFACE: &str = "to-near";
/// Nobody reads what is sent there.
const SINK: &str = "9";

/// What a link is like, each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Link {
    /// Megabits a second.
    pub megabits: f64,
    /// Milliseconds each way.
    pub delay: f64,
    /// Milliseconds more or less, uniform.
    pub jitter: f64,
    /// Share of packets lost.
    pub loss: f64,
    /// Megabits a second that others send.
    pub background: f64,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Mbit/s, {} ms each way", self.megabits, self.delay)?;
        if self.jitter > 0.0 {
            write!(f, ", jitter {} ms", self.jitter)?;
        }
        if self.loss > 0.0 {
            write!(f, ", loss {} %", self.loss * 100.0)?;
        }
        if self.background > 0.0 {
            write!(f, ", others send {} Mbit/s", self.background)?;
        }
        Ok(())
    }
}

/// The joined namespaces.
pub(super) struct Net<'n> {
    near: &'n Namespace,
    middle: &'n Namespace,
    relay: Child,
    changes: ChildStdin,
    said: BufReader<ChildStdout>,
    traffic: Option<Child>,
}

impl<'n> Net<'n> {
    /// Joins the first two namespaces.
    pub fn join(near: &Namespace, middle: &Namespace) -> Result<()> {
        let v6 = ["fd91:1::1/64", "fd91:1::2/64"];
        Namespace::link(
            (near, NEAR_INTERFACE, [&format!("{NEAR}/24"), v6[0]]),
            (middle, MIDDLE_INTERFACE, [&format!("{MIDDLE}/24"), v6[1]]),
        )?;
        near.default_routes(MIDDLE, "fd91:1::2")?;
        middle.forward()
    }

    /// Starts the relay between the second and the third.
    pub fn start(near: &'n Namespace, middle: &'n Namespace, far: &Namespace) -> Result<Self> {
        let mut relay = Command::new("python3")
            .arg(script("relay.py"))
            .args([middle.name(), RELAY, far.name(), FAR])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start python3")?;
        let changes = relay.stdin.take().context("a piped input")?;
        let said = BufReader::new(relay.stdout.take().context("a piped output")?);
        let mut net = Self {
            near,
            middle,
            relay,
            changes,
            said,
            traffic: None,
        };
        net.line()?;
        let route = ["route", "add", "default", "via", RELAY];
        run(&mut far.command("ip"), &route)?;
        Ok(net)
    }

    /// Makes it another link.
    pub fn set(&mut self, link: Link) -> Result<()> {
        for (namespace, interface) in [(self.near, NEAR_INTERFACE), (self.middle, MIDDLE_INTERFACE)]
        {
            let bits = (link.megabits * 1e6) as u64;
            // A millisecond's worth, and never less than two packets.
            let burst = (bits / 8000).max(3100);
            // A fifth of a second's worth, as routers have it, and never less than a small photo.
            let limit = (bits / 40).max(64 << 10);
            let words = format!(
                "qdisc replace dev {interface} root tbf rate {bits}bit burst {burst} limit {limit}"
            );
            let arguments: Vec<&str> = words.split(' ').collect();
            run(&mut namespace.command("tc"), &arguments)?;
        }
        let Link {
            delay,
            jitter,
            loss,
            background,
            ..
        } = link;
        writeln!(self.changes, "{delay} {jitter} {loss}")?;
        self.changes.flush()?;
        self.line()?;
        self.quiet();
        if background > 0.0 {
            let traffic = self
                .near
                .command("python3")
                .arg(script("traffic.py"))
                .args([MIDDLE, SINK, &background.to_string()])
                .spawn();
            self.traffic = Some(traffic.context("cannot start python3")?);
        }
        Ok(())
    }

    /// Ends the traffic of others.
    fn quiet(&mut self) {
        if let Some(mut traffic) = self.traffic.take() {
            let _ = traffic.kill();
            let _ = traffic.wait();
        }
    }

    fn line(&mut self) -> Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        ensure!(!line.is_empty(), "relay.py has ended: see above");
        Ok(())
    }
}

impl Drop for Net<'_> {
    fn drop(&mut self) {
        self.quiet();
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}

fn run(command: &mut Command, arguments: &[&str]) -> Result<()> {
    let status = command.args(arguments).status()?;
    ensure!(status.success(), "{}: {status}", arguments.join(" "));
    Ok(())
}
