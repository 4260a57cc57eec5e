//! Network namespaces joined by veth pairs: several hosts in one machine. Needs root and `ip`.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A network namespace; it is gone, with its links, when this is dropped.
pub struct Namespace {
    name: String,
    /// Whether it goes with this value.
    made: bool,
}

impl Namespace {
    /// A new namespace in which only the loopback interface is up. `role` is part of its name.
    ///
    /// # Errors
    /// If the system lets this user make none.
    pub fn new(role: &str) -> Result<Self> {
        let name = format!("sidecod-{role}-{}", std::process::id());
        ip(&["netns", "add", &name])
            .context("network namespaces cannot be made here: run as root, with iproute2")?;
        let namespace = Self { name, made: true };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// A namespace that somebody else has made and takes away.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            made: false,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Links two namespaces: `a` gets `addresses.0` (with prefix lengths) on an interface named after
    /// `b`'s role, and the other way round.
    ///
    /// # Errors
    /// If the system makes no such link.
    pub fn link(
        (a, interface_a, addresses_a): (&Self, &str, [&str; 2]),
        (b, interface_b, addresses_b): (&Self, &str, [&str; 2]),
    ) -> Result<()> {
        ip(&[
            "link",
            "add",
            interface_a,
            "netns",
            &a.name,
            "type",
            "veth",
            "peer",
            "name",
            interface_b,
            "netns",
            &b.name,
        ])?;
        for (namespace, interface, addresses) in
            [(a, interface_a, addresses_a), (b, interface_b, addresses_b)]
        {
            for address in addresses {
                // Nobody else is there who could have the same address.
                let nodad: &[&str] = if address.contains(':') {
                    &["nodad"]
                } else {
                    &[]
                };
                let add = ["addr", "add", address, "dev", interface];
                namespace.ip(&[&add[..], nodad].concat())?;
            }
            namespace.ip(&["link", "set", interface, "up"])?;
        }
        Ok(())
    }

    /// Sends what is for elsewhere to these hosts.
    ///
    /// # Errors
    /// If the system does not take the routes.
    pub fn default_routes(&self, ipv4: &str, ipv6: &str) -> Result<()> {
        self.ip(&["route", "add", "default", "via", ipv4])?;
        self.ip(&["-6", "route", "add", "default", "via", ipv6])
    }

    /// Lets it pass on what is for others.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn forward(&self) -> Result<()> {
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            let write = format!("echo 1 > /proc/sys/{key}");
            let status = self.command("sh").args(["-c", &write]).status()?;
            if !status.success() {
                bail!("{}: cannot set {key}", self.name);
            }
        }
        Ok(())
    }

    /// A command that runs in it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// A command that runs in it as another user, who may read what root may: programs and files
    /// often lie where nobody else comes.
    #[must_use]
    pub fn command_as(&self, uid: u32, program: &str) -> Command {
        let mut command = self.command("setpriv");
        command
            .args(["--reuid", &uid.to_string(), "--regid", &uid.to_string()])
            .args(["--clear-groups", "--inh-caps", "+dac_override"])
            .args(["--ambient-caps", "+dac_override", program]);
        command
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.made {
            let _ = ip(&["netns", "del", &self.name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let line = format!("ip {}", arguments.join(" "));
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .with_context(|| format!("{line}: is iproute2 installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{line}: {}", said.trim());
    }
    Ok(())
}
