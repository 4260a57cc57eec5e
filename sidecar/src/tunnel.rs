//! Bytes both ways between an upgraded connection and an HTTP/2 stream, or another such connection.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use http_body_util::channel::Sender;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::body::BoxError;

/// Bytes that are read at a time.
const PIECE: usize = 16 << 10;

/// Joins a connection with the two bodies of a stream, until both have ended, one breaks, or nothing
/// has moved for `idle`. The end of one direction leaves the other open.
///
/// # Errors
/// What broke it; `TimedOut` after `idle`.
pub async fn join(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    sender: Sender<Bytes, BoxError>,
    body: impl http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    idle: Duration,
) -> io::Result<()> {
    let moved = AtomicU64::new(0);
    let (mut read, mut write) = tokio::io::split(connection);
    let mut sender = Some(sender);
    let out = async {
        while let Some(open) = &mut sender {
            let mut piece = BytesMut::with_capacity(PIECE);
            if read.read_buf(&mut piece).await? == 0 {
                sender = None;
                break;
            }
            moved.fetch_add(1, Ordering::Relaxed);
            let sent = open.send_data(piece.freeze()).await;
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(())
    };
    let back = async {
        let mut body = body;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                moved.fetch_add(1, Ordering::Relaxed);
                write.write_all(&data).await?;
                write.flush().await?;
            }
        }
        write.shutdown().await
    };
    let both = async { tokio::try_join!(out, back).map(drop) };
    let ended = tokio::select! {
        ended = both => ended,
        () = idle_for(&moved, idle) => Err(io::ErrorKind::TimedOut.into()),
    };
    if let (Err(error), Some(sender)) = (&ended, sender) {
        // Without it the other side would take this for a good end.
        sender.abort(error.to_string().into());
    }
    ended
}

/// Returns when the count has not changed for `idle`.
async fn idle_for(count: &AtomicU64, idle: Duration) {
    let mut last = None;
    loop {
        let now = count.load(Ordering::Relaxed);
        if last == Some(now) {
            return;
        }
        last = Some(now);
        tokio::time::sleep(idle).await;
    }
}
