//! What an app sees: one connection for each request, as curl makes them, and everything that comes
//! back on it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A request of an app.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// Its `x-request-id`.
    pub id: String,
    /// The path.
    pub path: &'a str,
    /// The media type of the body.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// What came back, up to the end of the connection.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `sidecod-error`, where a sidecar itself answers.
    pub error: Option<String>,
    /// `content-type`.
    pub content_type: String,
    /// The body, as long as the head has said.
    pub body: Vec<u8>,
}

/// What an app must never get.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no whole answer.
    #[error("{0:#}")]
    Lost(#[from] anyhow::Error),
    /// Something came after the answer.
    #[error("{0} bytes came after the answer")]
    Twice(usize),
}

impl Ask<'_> {
    /// Sends it and reads until the other side ends the connection.
    ///
    /// # Errors
    /// If there is not exactly one whole answer within `limit`.
    pub async fn send(&self, to: SocketAddr, limit: Duration) -> Result<Answer, Fault> {
        let exchange = async {
            let mut stream = TcpStream::connect(to).await.context("connect")?;
            let head = format!(
                "POST {} HTTP/1.1\r\nhost: model.example\r\nconnection: close\r\nx-request-id: {}\r\n\
                 content-type: {}\r\ncontent-length: {}\r\n\r\n",
                self.path,
                self.id,
                self.content_type,
                self.body.len()
            );
            stream.write_all(head.as_bytes()).await.context("send")?;
            stream.write_all(self.body).await.context("send")?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.context("read")?;
            Ok::<_, anyhow::Error>(all)
        };
        let all = timeout(limit, exchange)
            .await
            .with_context(|| format!("no whole answer within {limit:?}"))??;
        read(&all)
    }
}

/// Reads the one answer that `all` is.
fn read(all: &[u8]) -> Result<Answer, Fault> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.context("the connection ended before a whole head")?;
    let head = std::str::from_utf8(&all[..end]).context("the head")?;
    let body = &all[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.context("no status")?.parse().context("status")?;
    let header = |name: &str| {
        lines.clone().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let length = header("content-length").context("an answer without a length")?;
    let length: usize = length.parse().context("content-length")?;
    if body.len() < length {
        let got = body.len();
        return Err(anyhow!("the answer broke off after {got} of {length} bytes").into());
    }
    if body.len() > length {
        return Err(Fault::Twice(body.len() - length));
    }
    Ok(Answer {
        status,
        error: header("sidecod-error"),
        content_type: header("content-type").unwrap_or_default(),
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_answer_and_nothing_else() {
        let good =
            b"HTTP/1.1 502 Bad Gateway\r\nSidecod-Error: timeout\r\ncontent-length: 2\r\n\r\nab";
        let answer = read(good).unwrap();
        assert_eq!((answer.status, &answer.body[..]), (502, &b"ab"[..]));
        assert_eq!(answer.error.as_deref(), Some("timeout"));
        assert!(read(&good[..good.len() - 1]).is_err());
        let twice = read(&[&good[..], &good[..]].concat());
        assert!(matches!(twice, Err(Fault::Twice(bytes)) if bytes == good.len()));
        assert!(read(&good[..20]).is_err());
        assert!(read(b"").is_err());
    }
}
