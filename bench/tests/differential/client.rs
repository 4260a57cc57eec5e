//! An app that writes bytes, and reads what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::raw::{self, Message};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What an app gets for a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Got {
    /// Status codes of answers before the last one.
    pub interim: Vec<u16>,
    /// The answer, if there was one.
    pub answer: Option<Message>,
    /// Whether the connection takes another request.
    pub kept: bool,
}

/// Opens a connection.
pub async fn connect(to: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(to).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    BufReader::new(stream)
}

/// Reads an answer to a request of this method.
pub async fn answer(stream: &mut BufReader<TcpStream>, method: &str) -> Got {
    let mut got = Got::default();
    let read = async {
        while let Ok(mut answer) = raw::head(stream).await {
            if (100..200).contains(&answer.status()) && answer.status() != 101 {
                got.interim.push(answer.status());
                continue;
            }
            if method == "HEAD" || [101, 204, 304].contains(&answer.status()) {
                answer.whole = true;
            } else {
                raw::body(stream, &mut answer, true).await;
            }
            got.answer = Some(answer);
            return;
        }
    };
    // What has not come is missing in the comparison.
    let _ = timeout(PATIENCE, read).await;
    got
}

/// Sends `head`, then `body` (after a 100 if the head expects one), and reads the answer; then tries
/// the connection with `next`.
pub async fn exchange(to: SocketAddr, head: &[u8], body: &[u8], next: &[u8]) -> Got {
    let mut stream = connect(to).await;
    let text = String::from_utf8_lossy(head);
    let method = text.split(' ').next().unwrap_or_default().to_owned();
    let mut interim = Vec::new();
    stream.get_mut().write_all(head).await.expect("sent");
    if text.to_lowercase().contains("expect: 100-continue") {
        let first = timeout(PATIENCE, raw::head(&mut stream))
            .await
            .expect("in time");
        let Ok(mut first) = first else {
            return Got::default();
        };
        if first.status() != 100 {
            raw::body(&mut stream, &mut first, true).await;
            return Got {
                answer: Some(first),
                kept: false,
                interim,
            };
        }
        interim.push(100);
    }
    // A server that has answered already may not read it.
    let _ = stream.get_mut().write_all(body).await;
    let mut got = answer(&mut stream, &method).await;
    got.interim.splice(0..0, interim);
    got.kept = !next.is_empty()
        && stream.get_mut().write_all(next).await.is_ok()
        && answer(&mut stream, "GET").await.answer.is_some();
    got
}

/// Whether the other side ends the connection.
pub async fn ends(stream: &mut BufReader<TcpStream>) -> bool {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}
