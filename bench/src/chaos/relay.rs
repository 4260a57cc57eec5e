//! The link between device and edge as a relay in this process, which can be cut, or swallow
//! everything, while the connections on both sides look alive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the link does with what is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Carries it.
    Pass,
    /// Swallows it; new connections are taken and hear nothing.
    BlackHole,
    /// Resets new connections.
    Refuse,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// Counts how often all connections were reset.
    resets: u64,
}

/// A running relay; it ends when it is dropped.
pub struct Relay {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    held: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Relay {
    /// Listens on a free port of the loopback interface and passes on to `to`.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = State {
            mode: Mode::Pass,
            resets: 0,
        };
        let state = Arc::new(watch::Sender::new(state));
        let watched = state.clone();
        let held = Arc::<AtomicUsize>::default();
        let holding = held.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to, watched.subscribe(), holding.clone()));
            }
        });
        Ok(Self {
            address,
            state,
            held,
            _accepting: accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that have come and are not passed on.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Changes what it does.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Resets all connections.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }
}

async fn carry(
    near: TcpStream,
    to: SocketAddr,
    mut state: watch::Receiver<State>,
    held: Arc<AtomicUsize>,
) {
    let born = *state.borrow();
    if born.mode == Mode::Refuse {
        return abort(&near);
    }
    // What is sent into a black hole is not answered, whoever is behind it.
    if !until(&mut state, |state| state.mode == Mode::Pass).await {
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else {
        return abort(&near);
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let mut ended = state.clone();
    let reset = async move {
        ended
            .wait_for(|now| now.resets != born.resets)
            .await
            .is_ok()
    };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let up = pump(near_read, far_write, state.clone(), &held);
    let down = pump(far_read, near_write, state, &held);
    tokio::select! {
        ((near_read, far_write), (far_read, near_write)) = async { tokio::join!(up, down) } => {
            for (read, write) in [(near_read, near_write), (far_read, far_write)] {
                drop(read.reunite(write));
            }
        }
        // Dropped with bytes unread, or in the middle of things: the system resets both.
        true = reset => {}
    }
}

/// Copies one direction to its end, standing still while the link passes nothing.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    held: &AtomicUsize,
) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        held.fetch_add(read, Ordering::Relaxed);
        let passing = until(&mut state, |state| state.mode != Mode::BlackHole).await;
        held.fetch_sub(read, Ordering::Relaxed);
        if !passing {
            break;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
    (from, to)
}

/// Waits until the state is so; false where the relay has ended.
async fn until(state: &mut watch::Receiver<State>, so: impl FnMut(&State) -> bool + Send) -> bool {
    state.wait_for(so).await.is_ok()
}

/// Ends a connection with a reset.
fn abort(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio::time::timeout;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn each_mode_does_what_it_says() {
        let relay = Relay::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        let mut four = [0; 4];
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"ping");

        relay.set(Mode::BlackHole);
        stream.write_all(b"late").await.unwrap();
        let wait = Duration::from_millis(100);
        assert!(timeout(wait, stream.read_exact(&mut four)).await.is_err());
        relay.set(Mode::Pass);
        stream.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"late");

        relay.reset();
        assert!(!matches!(stream.read(&mut four).await, Ok(1..)));

        relay.set(Mode::Refuse);
        if let Ok(mut stream) = TcpStream::connect(relay.address()).await {
            let _ = stream.write_all(b"x").await;
            assert!(!matches!(stream.read(&mut four).await, Ok(1..)));
        }
    }
}
