//! A sidecar's question to a running one of its own configuration: for health checks where no HTTP
//! client is at hand and the admin port is on loopback, in a container above all.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// For the connection, and for each read and write.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read; names of blockers are short.
const MOST: u64 = 16 << 10;

/// Why a sidecar is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The port in the configuration is 0: nobody but the process knows where it listens.
    #[error("admin = {0}: say which port; 0 is a different one at every start")]
    AnyPort(SocketAddr),
    /// Nothing answers on the admin port.
    #[error("admin = {address}: {said}")]
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        said: std::io::Error,
    },
    /// It answers, and is not ready: what it said.
    #[error("not ready: {0}")]
    NotReady(String),
}

/// Asks the admin port of a configuration whether the sidecar that listens there is ready.
///
/// # Errors
/// [`HealthError`] if it is not.
pub fn ask(admin: SocketAddr) -> Result<(), HealthError> {
    if admin.port() == 0 {
        return Err(HealthError::AnyPort(admin));
    }
    let address = SocketAddr::new(reachable(admin.ip()), admin.port());
    let answer = get_ready(address).map_err(|said| HealthError::Unreachable { address, said })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ if body.is_empty() => Err(HealthError::NotReady(head.trim().to_owned())),
        _ => Err(HealthError::NotReady(body.trim().to_owned())),
    }
}

/// Where a listener on all addresses is found from its own machine.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

fn get_ready(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{self, Admin, Router};
    use crate::readiness::Readiness;
    use crate::shutdown::Shutdown;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn asked(admin: SocketAddr) -> Result<(), String> {
        let asking = tokio::task::spawn_blocking(move || ask(admin));
        asking.await.unwrap().map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_sidecar_says_whether_it_is_ready() {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_trigger, shutdown) = Shutdown::new();
        let readiness = Readiness::default();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let admin = Admin {
            program: "proxy-device",
            readiness: readiness.clone(),
            metrics,
            more: Router::new(),
        };
        tokio::spawn(admin::serve(listener, admin, shutdown));
        let blocker = readiness.block("bundle photo");
        assert_eq!(
            asked(address).await,
            Err("not ready: waiting for: bundle photo".to_owned())
        );
        drop(blocker);
        assert_eq!(asked(address).await, Ok(()));
    }

    #[tokio::test]
    async fn silence_and_other_servers_are_not_health() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
            stream.write_all(b"220 mail.example\r\n").await.unwrap();
        });
        let said = asked(address).await;
        assert_eq!(said, Err("not ready: 220 mail.example".to_owned()));
        let said = asked(address).await.unwrap_err();
        assert!(said.starts_with(&format!("admin = {address}: ")), "{said}");
        let said = asked("127.0.0.1:0".parse().unwrap()).await.unwrap_err();
        assert!(
            said.starts_with("admin = 127.0.0.1:0: say which port"),
            "{said}"
        );
    }
}
