//! Tunnels: bytes that go on as they are, both ways, with the half-close of each.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use sidecod_sidecar::metrics::Gauged;
use sidecod_sidecar::own::{ConnectError, Made, Own};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep, timeout};

use super::Way;
use super::destination::HostPort;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// No address of the destination can be connected to.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// No connection in time.
    #[error("no connection to {0} within {1:?}")]
    Timeout(String, Duration),
    /// The destination is this sidecar.
    #[error("the tunnel would come back to this sidecar: {0}")]
    Loop(ConnectError),
}

/// Connects to a host, address by address, all of them within `limit`.
///
/// # Errors
/// [`TunnelError`].
pub async fn open(own: &Own, host: &HostPort, limit: Duration) -> Result<Made, TunnelError> {
    let unreachable = |reason: String| TunnelError::Unreachable(host.to_string(), reason);
    let attempts = async {
        let addresses = host
            .look_up()
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let mut failed = unreachable("the name has no address".to_owned());
        // Each address has its share, so that one that does not answer leaves time for the others.
        let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        for address in addresses {
            match open_at(own, address, share).await {
                Ok(made) => return Ok(made),
                Err(error @ TunnelError::Loop(_)) => return Err(error),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    };
    timeout(limit, attempts)
        .await
        .unwrap_or_else(|_| Err(TunnelError::Timeout(host.to_string(), limit)))
}

/// Connects to an address within `limit`.
///
/// # Errors
/// [`TunnelError`].
pub async fn open_at(own: &Own, address: SocketAddr, limit: Duration) -> Result<Made, TunnelError> {
    match timeout(limit, own.connect(address)).await {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error @ ConnectError::Loop(_))) => Err(TunnelError::Loop(error)),
        Ok(Err(error)) => Err(TunnelError::Unreachable(
            address.to_string(),
            error.to_string(),
        )),
        Err(_) => Err(TunnelError::Timeout(address.to_string(), limit)),
    }
}

/// Copies both ways until both have ended, one has broken, or nothing has moved for `idle`. `reason`
/// is why this is a tunnel.
pub async fn run<C, S>(client: C, server: S, way: Way, reason: &'static str, idle: Duration)
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    metrics::counter!("sidecod_device_tunnels_total", "way" => way.name(), "reason" => reason)
        .increment(1);
    let _open = Gauged::new(metrics::gauge!("sidecod_device_tunnels"));
    match copy(client, server, idle).await {
        Ok((up, down)) => tracing::debug!(way = way.name(), reason, up, down, "a tunnel ended"),
        Err(error) => tracing::debug!(way = way.name(), reason, %error, "a tunnel broke"),
    }
}

async fn copy<C, S>(client: C, server: S, idle: Duration) -> io::Result<(u64, u64)>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let moves = Moves::new();
    let mut client = Watched {
        stream: client,
        moves: moves.clone(),
    };
    let mut server = Watched {
        stream: server,
        moves: moves.clone(),
    };
    let mut copying = pin!(copy_bidirectional(&mut client, &mut server));
    loop {
        let rest = idle.saturating_sub(moves.since());
        if rest.is_zero() {
            let text = format!("nothing has moved for {idle:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        tokio::select! {
            copied = &mut copying => return copied,
            () = sleep(rest) => {}
        }
    }
}

/// When bytes last moved.
#[derive(Clone)]
struct Moves {
    start: Instant,
    /// Milliseconds after the start.
    last: Arc<AtomicU64>,
}

impl Moves {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last: Arc::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    fn since(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

/// A stream that notes when bytes move.
struct Watched<S> {
    stream: S,
    moves: Moves,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.moves.note();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.moves.note();
        }
        written
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn each_side_ends_on_its_own() {
        let (mut app, client) = duplex(64);
        let (server, mut peer) = duplex(64);
        let tunnel = tokio::spawn(copy(client, server, HOUR));
        app.write_all(b"question").await.unwrap();
        app.shutdown().await.unwrap();
        let mut asked = String::new();
        peer.read_to_string(&mut asked).await.unwrap();
        // The peer has seen the end, and still has the floor.
        peer.write_all(b"answer").await.unwrap();
        drop(peer);
        let mut answered = String::new();
        app.read_to_string(&mut answered).await.unwrap();
        assert_eq!((&asked[..], &answered[..]), ("question", "answer"));
        assert_eq!(tunnel.await.unwrap().unwrap(), (8, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_in_which_nothing_moves_is_closed() {
        let (mut app, client) = duplex(64);
        let (server, mut peer) = duplex(64);
        let tunnel = tokio::spawn(copy(client, server, HOUR));
        let start = Instant::now();
        for _ in 0..3 {
            sleep(HOUR / 2).await;
            app.write_all(b"x").await.unwrap();
            assert_eq!(peer.read_u8().await.unwrap(), b'x');
        }
        let error = tunnel.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= HOUR * 5 / 2 && start.elapsed() < HOUR * 3);
    }
}
