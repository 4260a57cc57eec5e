//! The system's rules that send an app's connections to a transparent listener: printed, installed
//! or removed. They redirect what users of some ids connect to at some ports, wherever it goes, and
//! never what this sidecar connects to, or it would be its own app.

pub mod iptables;
pub mod nft;
mod tool;

use std::os::unix::fs::MetadataExt;

use clap::{Args, ValueEnum};

use tool::found;

/// The name of the table or chain that holds the rules.
const NAME: &str = "sidecod";

/// Sends an app's connections to a transparent listener of proxy-device.
#[derive(Debug, Clone, Args)]
pub struct Redirect {
    /// Ids of the users whose connections are redirected, with commas between.
    #[arg(
        long,
        value_name = "UID",
        value_delimiter = ',',
        required_unless_present = "remove"
    )]
    pub uid: Vec<u32>,
    /// Ports whose connections are redirected, with commas between.
    #[arg(
        long, value_name = "PORT", value_delimiter = ',', required_unless_present = "remove",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub ports: Vec<u16>,
    /// Port of the transparent listener, on the loopback addresses of IPv4 and IPv6.
    #[arg(long, value_name = "PORT", default_value_t = 7002, value_parser = clap::value_parser!(u16).range(1..))]
    pub to: u16,
    /// Id of the user as whom proxy-device runs, who is never redirected [default: the one who runs
    /// this].
    #[arg(long, value_name = "UID")]
    pub own_uid: Option<u32>,
    /// Whose rules these are [default: nft where it is installed].
    #[arg(long)]
    pub tool: Option<Tool>,
    /// Install the rules, in place of those that were installed before.
    #[arg(long, conflicts_with = "remove")]
    pub apply: bool,
    /// Remove what --apply has installed.
    #[arg(long)]
    pub remove: bool,
}

/// What sets rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    /// nftables.
    Nft,
    /// iptables and ip6tables.
    Iptables,
}

/// Why the rules are not printed, installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// The sidecar's own traffic would be redirected, or nothing.
    #[error(
        "--uid {0} is also the user of proxy-device, who is never redirected: run the app and \
         proxy-device as different users, and name the latter with --own-uid"
    )]
    OwnUser(u32),
    /// The listener's own port.
    #[error("--ports {0} is also the port of the transparent listener (--to)")]
    OwnPort(u16),
    /// Rules are for root to set.
    #[error("only root sets such rules; without {0} they are printed")]
    NotRoot(&'static str),
    /// No program that sets rules.
    #[error("{0} is not installed: try `apt-get install nftables`, or `apt-get install iptables`")]
    Missing(&'static str),
    /// A program failed.
    #[error("`{command}`: {said}")]
    Failed {
        /// What was called.
        command: String,
        /// What it, or the system, said.
        said: String,
    },
    /// The system does not tell who runs this.
    #[error("cannot find out who runs this: {0}")]
    User(std::io::Error),
}

/// Rules, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    own_uid: u32,
    uids: Vec<u32>,
    ports: Vec<u16>,
    to: u16,
}

impl Redirect {
    /// Does what the arguments say. Returns what is to be printed.
    ///
    /// # Errors
    /// [`RedirectError`].
    pub fn run(&self) -> Result<String, RedirectError> {
        let user = user()?;
        if self.remove {
            root(user, "--remove")?;
            remove()?;
            return Ok(String::new());
        }
        let rules = self.rules(user)?;
        let tool = match self.tool {
            Some(tool) => tool,
            None if found("nft") => Tool::Nft,
            None if found("iptables") => Tool::Iptables,
            // Printed for a machine that has it.
            None if !self.apply => Tool::Nft,
            None => return Err(RedirectError::Missing("nft")),
        };
        if self.apply {
            root(user, "--apply")?;
            remove()?;
            match tool {
                Tool::Nft => nft::apply(&rules)?,
                Tool::Iptables => iptables::apply(&rules)?,
            }
        }
        Ok(match tool {
            Tool::Nft => nft::text(&rules),
            Tool::Iptables => iptables::text(&rules),
        })
    }

    /// The rules, if they cannot do harm. `user` is who runs this.
    fn rules(&self, user: u32) -> Result<Rules, RedirectError> {
        let own_uid = self.own_uid.unwrap_or(user);
        if self.uid.contains(&own_uid) {
            return Err(RedirectError::OwnUser(own_uid));
        }
        if self.ports.contains(&self.to) {
            return Err(RedirectError::OwnPort(self.to));
        }
        let (mut uids, mut ports) = (self.uid.clone(), self.ports.clone());
        uids.sort_unstable();
        uids.dedup();
        ports.sort_unstable();
        ports.dedup();
        Ok(Rules {
            own_uid,
            uids,
            ports,
            to: self.to,
        })
    }
}

/// Removes the rules of whatever tool.
fn remove() -> Result<(), RedirectError> {
    let (nft, iptables) = (found("nft"), found("iptables"));
    if !nft && !iptables {
        return Err(RedirectError::Missing("nft"));
    }
    if nft {
        nft::remove()?;
    }
    if iptables {
        iptables::remove()?;
    }
    Ok(())
}

/// Who runs this process.
fn user() -> Result<u32, RedirectError> {
    let process = std::fs::metadata("/proc/self").map_err(RedirectError::User)?;
    Ok(process.uid())
}

fn root(user: u32, argument: &'static str) -> Result<(), RedirectError> {
    if user == 0 {
        Ok(())
    } else {
        Err(RedirectError::NotRoot(argument))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        redirect: Redirect,
    }

    fn parse(line: &str) -> Result<Redirect, clap::Error> {
        let words = std::iter::once("redirect").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map(|arguments| arguments.redirect)
    }

    pub(crate) fn rules(line: &str) -> Rules {
        parse(line).unwrap().rules(0).unwrap()
    }

    #[test]
    fn lists_are_put_in_order() {
        let rules = rules("--uid 1001,1000 --ports 8080,8000,8080");
        assert_eq!(
            (&rules.uids[..], &rules.ports[..]),
            (&[1000, 1001][..], &[8000, 8080][..])
        );
        assert_eq!((rules.own_uid, rules.to), (0, 7002));
    }

    #[test]
    fn what_would_do_harm_is_refused() {
        for line in [
            "--ports 80",
            "--uid 1",
            "--uid 1 --ports 0",
            "--uid 1 --ports 70000",
            "--uid app --ports 80",
            "--uid 1 --ports 80 --apply --remove",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let refused = |line: &str| parse(line).unwrap().rules(0).unwrap_err().to_string();
        assert!(refused("--uid 0,5 --ports 80").contains("--uid 0 is also the user"));
        assert!(refused("--uid 5 --own-uid 5 --ports 80").contains("--uid 5"));
        assert!(refused("--uid 5 --ports 80,7002").contains("--ports 7002"));
        assert!(
            root(1000, "--apply")
                .unwrap_err()
                .to_string()
                .contains("only root")
        );
        assert!(parse("--remove").is_ok());
    }
}
