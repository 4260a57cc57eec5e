//! Where a request goes, and which destinations may be reached through the edge.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderValue, Version};
use serde::{Deserialize, Deserializer, de::Error as _};
use sidecod_sidecar::own::canonical;
use sidecod_sidecar::upstream::Upstream;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use crate::config;

/// How often the addresses of names are looked up again.
const REFRESH: Duration = Duration::from_secs(30);
/// How long one look-up may take.
const LOOKUP: Duration = Duration::from_secs(5);

/// Where a request goes.
#[derive(Clone)]
pub struct Destination {
    /// The edge's name for the model server; none where the edge is not asked.
    pub upstream: Option<HeaderValue>,
    /// The server itself: the last resort of what goes through the edge, the only one of the rest.
    pub direct: Option<Arc<Upstream>>,
    /// The version of HTTP in which the server is called.
    pub version: Version,
}

impl Destination {
    /// Whether requests go through the edge, where their inputs may cross as codes.
    #[must_use]
    pub fn through_edge(&self) -> bool {
        self.upstream.is_some()
    }
}

/// A host as an app may write it: compared without regard to case, a final dot, or a port of 80.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets.
    host: String,
    port: u16,
}

impl HostPort {
    /// The host of a request's target.
    #[must_use]
    pub fn of(authority: &Authority) -> Self {
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        Self {
            host: host.to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(80),
        }
    }

    /// The address, where it is written as one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(canonical(SocketAddr::new(ip, self.port)))
    }

    /// The addresses behind it.
    ///
    /// # Errors
    /// What the system said of the name.
    pub async fn look_up(&self) -> std::io::Result<Vec<SocketAddr>> {
        let found = lookup_host((&self.host[..], self.port)).await?;
        Ok(found.map(canonical).collect())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse::<Authority>() {
            Ok(authority) if !authority.host().is_empty() && !text.contains('@') => {
                Ok(Self::of(&authority))
            }
            _ => Err(D::Error::custom(format!(
                "`{text}` is no host, want name:port or address:port"
            ))),
        }
    }
}

/// The destinations that may be reached through the edge.
#[derive(Default)]
pub struct Listed(Vec<Host>);

struct Host {
    name: HostPort,
    upstream: HeaderValue,
    /// What the name stood for when it was last looked up.
    addresses: RwLock<Vec<SocketAddr>>,
}

impl Listed {
    /// The destinations of a configuration. Names have no addresses yet.
    ///
    /// # Errors
    /// If the name of an upstream cannot stand in a header.
    pub fn new(list: &[config::Destination]) -> Result<Self, http::Error> {
        let mut hosts = Vec::new();
        for destination in list {
            let upstream = HeaderValue::from_str(&destination.upstream)?;
            for name in &destination.hosts {
                hosts.push(Host {
                    addresses: RwLock::new(name.address().into_iter().collect()),
                    name: name.clone(),
                    upstream: upstream.clone(),
                });
            }
        }
        Ok(Self(hosts))
    }

    /// The edge's name for a destination that the request names.
    #[must_use]
    pub fn named(&self, name: &HostPort) -> Option<HeaderValue> {
        let address = name.address();
        let host = self.0.iter().find(|host| {
            host.name == *name || (address.is_some() && host.name.address() == address)
        });
        host.map(|host| host.upstream.clone())
    }

    /// The edge's name for a destination of which only the address is known.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Option<HeaderValue> {
        let address = canonical(address);
        let host = self.0.iter().find(|host| {
            let addresses = host.addresses.read();
            addresses
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&address)
        });
        host.map(|host| host.upstream.clone())
    }

    /// Looks up the names. What cannot be found keeps the addresses that it had.
    pub async fn look_up(&self) {
        for host in self.0.iter().filter(|host| host.name.address().is_none()) {
            match timeout(LOOKUP, host.name.look_up()).await {
                Ok(Ok(found)) => {
                    *host
                        .addresses
                        .write()
                        .unwrap_or_else(PoisonError::into_inner) = found;
                }
                Ok(Err(error)) => {
                    tracing::warn!(host = %host.name, %error, "no address of this destination");
                }
                Err(_) => tracing::warn!(host = %host.name, "no address within {LOOKUP:?}"),
            }
        }
    }

    /// Looks up the names again and again.
    pub async fn keep_up(&self) {
        if self.0.iter().all(|host| host.name.address().is_some()) {
            return;
        }
        loop {
            sleep(REFRESH).await;
            self.look_up().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPort {
        HostPort::of(&text.parse().unwrap())
    }

    fn listed(hosts: &[&str]) -> Listed {
        Listed::new(&[config::Destination {
            hosts: hosts.iter().map(|text| host(text)).collect(),
            upstream: "m".to_owned(),
        }])
        .unwrap()
    }

    #[test]
    fn a_host_may_be_written_in_several_ways() {
        let listed = listed(&[
            "Model.lan:8080",
            "plain",
            "10.0.0.5:8080",
            "[2001:DB8::0:5]:9",
        ]);
        for (text, is) in [
            ("model.LAN.:8080", true),
            ("model.lan", false),
            ("plain", true),
            ("plain:80", true),
            ("10.0.0.5:8080", true),
            ("[::ffff:10.0.0.5]:8080", true),
            ("10.0.0.5", false),
            ("[2001:db8::5]:9", true),
        ] {
            assert_eq!(listed.named(&host(text)).is_some(), is, "{text}");
        }
    }

    #[tokio::test]
    async fn names_are_known_by_their_addresses() {
        let listed = listed(&["localhost:8080", "10.0.0.5:8080", "no-such-host.invalid:1"]);
        let at = |text: &str| listed.at(text.parse().unwrap()).is_some();
        assert!(at("10.0.0.5:8080") && at("[::ffff:10.0.0.5]:8080") && !at("10.0.0.5:8081"));
        assert!(!at("127.0.0.1:8080"));
        listed.look_up().await;
        assert!(at("127.0.0.1:8080") && !at("127.0.0.1:8081"));
    }
}
