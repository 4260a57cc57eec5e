//! What is this process' own: where it listens, and the connections that it has made. A connection
//! from the one to the other is a loop, and a loop that is not refused ends with the last file
//! descriptor.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

/// The addresses that are this process' own. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Own(Arc<Mutex<Addresses>>);

#[derive(Debug, Default)]
struct Addresses {
    listeners: Vec<SocketAddr>,
    /// Local addresses of connections that were made, and how many have each. One that was bound
    /// before it was connected stands here with the unspecified IP.
    outgoing: HashMap<SocketAddr, usize>,
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It would lead back to this process.
    #[error("{0} is a listener of this very sidecar")]
    Loop(SocketAddr),
    /// What the system said.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Own {
    /// Notes a listener.
    pub fn listens(&self, address: SocketAddr) {
        self.lock().listeners.push(canonical(address));
    }

    /// Whether a connection to `address` ends at one of the listeners.
    #[must_use]
    pub fn is_listener(&self, address: SocketAddr) -> bool {
        let mut address = canonical(address);
        // The system takes the unspecified address for the loopback one.
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let here: Vec<IpAddr> = self
            .lock()
            .listeners
            .iter()
            .filter(|listener| listener.port() == address.port())
            .map(SocketAddr::ip)
            .collect();
        here.contains(&address.ip())
            || (here.iter().any(IpAddr::is_unspecified) && is_local(address.ip()))
    }

    /// Whether `peer`, from where a connection was accepted, is the other end of one that this
    /// process has made. Certain for those of [`Own::connect`]; for those of [`Own::note`] once they
    /// have sent a byte.
    #[must_use]
    pub fn is_outgoing(&self, peer: SocketAddr) -> bool {
        let peer = canonical(peer);
        let bound = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            .map(|ip: IpAddr| SocketAddr::new(ip, peer.port()));
        let (known, bound) = {
            let addresses = self.lock();
            let known = |address| addresses.outgoing.contains_key(address);
            (known(&peer), bound.iter().any(known))
        };
        known || (bound && is_local(peer.ip()))
    }

    /// Connects, and knows the connection's local address before the other end can.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, address: SocketAddr) -> Result<Made, ConnectError> {
        if self.is_listener(address) {
            return Err(ConnectError::Loop(address));
        }
        let (socket, any): (_, IpAddr) = if address.is_ipv4() {
            (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into())
        } else {
            (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into())
        };
        // Where no port is free for every destination, one may be for this destination alone: the
        // system finds that out when it connects.
        if socket.bind(SocketAddr::new(any, 0)).is_err() {
            return self.note(TcpStream::connect(address).await?);
        }
        let noted = Noted::new(self, socket.local_addr()?);
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Made {
            stream,
            _noted: noted,
        })
    }

    /// Notes a connection that was made, until it is dropped.
    ///
    /// # Errors
    /// [`ConnectError`], also where it leads to a listener of this process.
    pub fn note(&self, stream: TcpStream) -> Result<Made, ConnectError> {
        let peer = stream.peer_addr()?;
        if self.is_listener(peer) {
            return Err(ConnectError::Loop(peer));
        }
        let noted = Noted::new(self, stream.local_addr()?);
        stream.set_nodelay(true)?;
        Ok(Made {
            stream,
            _noted: noted,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address without the form that IPv4 has inside IPv6.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether an address belongs to this machine: only such a one can be bound to.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// An entry of [`Addresses::outgoing`].
#[derive(Debug)]
struct Noted {
    own: Own,
    address: SocketAddr,
}

impl Noted {
    fn new(own: &Own, address: SocketAddr) -> Self {
        let address = canonical(address);
        *own.lock().outgoing.entry(address).or_default() += 1;
        Self {
            own: own.clone(),
            address,
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut addresses = self.own.lock();
        if let Some(count) = addresses.outgoing.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.outgoing.remove(&self.address);
            }
        }
    }
}

/// A connection that this process has made.
#[derive(Debug)]
pub struct Made {
    stream: TcpStream,
    _noted: Noted,
}

impl Made {
    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl Connection for Made {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl AsyncRead for Made {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Made {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn listeners_are_known_under_every_address_that_leads_to_them() {
        let own = Own::default();
        own.listens(address("127.0.0.1:7000"));
        own.listens(address("[::]:7001"));
        for (to, is) in [
            ("127.0.0.1:7000", true),
            ("[::ffff:127.0.0.1]:7000", true),
            ("0.0.0.0:7000", true),
            ("127.0.0.2:7000", false),
            ("127.0.0.1:7002", false),
            ("127.0.0.1:7001", true),
            ("[::1]:7001", true),
            // Documentation addresses: no machine has them.
            ("192.0.2.1:7001", false),
            ("[2001:db8::1]:7001", false),
        ] {
            assert_eq!(own.is_listener(address(to)), is, "{to}");
        }
    }

    #[tokio::test]
    async fn connections_are_known_as_long_as_they_live() {
        let own = Own::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let connected = own.connect(to).await.unwrap();
        let (_, first) = listener.accept().await.unwrap();
        let noted = own.note(TcpStream::connect(to).await.unwrap()).unwrap();
        let (_, second) = listener.accept().await.unwrap();
        let other = TcpStream::connect(to).await.unwrap();
        let (_, third) = listener.accept().await.unwrap();
        assert!(own.is_outgoing(first) && own.is_outgoing(second) && !own.is_outgoing(third));
        drop((connected, noted, other));
        assert!(!own.is_outgoing(first) && !own.is_outgoing(second));
        assert!(own.lock().outgoing.is_empty());
    }

    #[tokio::test]
    async fn no_connection_is_made_to_a_listener_of_its_own() {
        let own = Own::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        own.listens(to);
        let stream = TcpStream::connect(to).await.unwrap();
        assert!(matches!(own.connect(to).await, Err(ConnectError::Loop(_))));
        assert!(matches!(own.note(stream), Err(ConnectError::Loop(_))));
    }
}
