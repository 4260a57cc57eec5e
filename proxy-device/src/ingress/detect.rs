//! Which protocol the first bytes of a connection are.
//!
//! The trade-off: whoever waits for bytes to look at delays protocols in which the server speaks
//! first, and whoever does not wait for all of a request line takes another protocol for HTTP.
//! - Only connections to destinations of the configuration are looked at. All others are tunnelled
//!   at once, with no delay and no look.
//! - Bytes that can no longer become a request line, or the preface of HTTP/2, are another protocol
//!   with the first byte that says so: TLS with the very first.
//! - A line that is still incomplete when the time is up is another protocol. The price: a request
//!   line that arrives in pieces that far apart is tunnelled, so it is answered, but not coded.
//! - Where no byte has come in time, either side may still speak first; see [`super::transparent`].
//!   So connections that an app opens ahead of need lose nothing.
//!
//! What is doubtful is tunnelled, because that is never wrong: lines before the request line, a line
//! that ends without CR, `CONNECT`, and versions other than HTTP/1.0 and HTTP/1.1.

use std::io;

use bytes::BytesMut;
use sidecod_sidecar::framing::begins_token;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longer words are no methods: the longest that are registered have 17 letters.
const LONGEST_METHOD: usize = 32;
/// A line that has been a request line for so long is one, and the server knows how long it may be.
const LONG_LINE: usize = 4096;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// HTTP/2 without an upgrade before it.
    Http2,
    /// Anything else.
    Other,
}

/// Reads into `buffer` until its bytes, or the end of the stream, say what the protocol is. May be
/// dropped and called again with the same buffer.
///
/// # Errors
/// If the stream breaks.
pub async fn detect<S>(stream: &mut S, buffer: &mut BytesMut) -> io::Result<Protocol>
where
    S: AsyncRead + Unpin,
{
    loop {
        if let Some(protocol) = protocol(buffer) {
            return Ok(protocol);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(Protocol::Other);
        }
    }
}

/// The protocol of a connection that begins with `bytes`; none while more of them are needed.
fn protocol(bytes: &[u8]) -> Option<Protocol> {
    if bytes.starts_with(PREFACE) {
        return Some(Protocol::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    match request_line(bytes) {
        Line::Begun if bytes.len() < LONG_LINE => None,
        Line::Begun | Line::Whole => Some(Protocol::Http1),
        Line::Other => Some(Protocol::Other),
    }
}

/// How far a request line has got (RFC 9112, section 3).
enum Line {
    Begun,
    Whole,
    Other,
}

fn request_line(bytes: &[u8]) -> Line {
    let Some((method, rest)) = split(bytes) else {
        return begun(bytes.len() <= LONGEST_METHOD && begins_token(bytes));
    };
    // A tunnel in the tunnel is for the proxy that the app speaks to.
    let is_method = (1..=LONGEST_METHOD).contains(&method.len())
        && begins_token(method)
        && method != b"CONNECT";
    if !is_method {
        return Line::Other;
    }
    let is_target = |target: &[u8]| {
        let starts = [&b"/"[..], b"*", b"http://"];
        let begins = |start: &&[u8]| target.starts_with(start) || start.starts_with(target);
        starts.iter().any(begins) && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
    };
    let Some((target, version)) = split(rest) else {
        return begun(is_target(rest));
    };
    if target.is_empty() || !is_target(target) {
        return Line::Other;
    }
    let versions = [&b"HTTP/1.1\r\n"[..], b"HTTP/1.0\r\n"];
    if versions.iter().any(|whole| version.starts_with(whole)) {
        Line::Whole
    } else {
        begun(versions.iter().any(|whole| whole.starts_with(version)))
    }
}

fn begun(so_far: bool) -> Line {
    if so_far { Line::Begun } else { Line::Other }
}

/// What stands before and after the first space.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..space], &bytes[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncWriteExt, duplex};

    const PROTOCOLS: [(&[u8], Protocol); 17] = [
        (b"GET / HTTP/1.1\r\n", Protocol::Http1),
        (b"POST /predictions/x?y=z HTTP/1.0\r\n", Protocol::Http1),
        (b"OPTIONS * HTTP/1.1\r\n", Protocol::Http1),
        (b"GET http://model.lan/x HTTP/1.1\r\n", Protocol::Http1),
        (b"M-SEARCH /x HTTP/1.1\r\n", Protocol::Http1),
        (PREFACE, Protocol::Http2),
        (b"PRI * HTTP/2.0\r\n\r\nXX", Protocol::Other),
        (b"\x16\x03\x01\x02", Protocol::Other),
        (b"EHLO mail.example\r\n", Protocol::Other),
        (b"*1\r\n$4\r\nPING\r\n", Protocol::Other),
        (b"get key\r\n", Protocol::Other),
        (b"OPTIONS sip:x@y SIP/2.0\r\n", Protocol::Other),
        (b"OPTIONS rtsp://x RTSP/1.0\r\n", Protocol::Other),
        (b"CONNECT model.lan:443 HTTP/1.1\r\n", Protocol::Other),
        (b"GET / HTTP/1.1\n", Protocol::Other),
        (b"\r\nGET / HTTP/1.1\r\n", Protocol::Other),
        (b"GET /\r\n", Protocol::Other),
    ];

    #[test]
    fn protocols_are_told_apart_by_their_first_bytes() {
        for (bytes, expected) in PROTOCOLS {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(protocol(bytes), Some(expected), "{text:?}");
            // However the bytes are split, none of the pieces says anything else.
            for end in 0..bytes.len() {
                let early = protocol(&bytes[..end]);
                let fits =
                    early.is_none() || (early == Some(expected) && expected == Protocol::Other);
                assert!(fits, "{early:?} after {end} bytes of {text:?}");
            }
        }
        assert_eq!(protocol(b"PUT"), None);
        assert_eq!(protocol(&[b'x'; LONGEST_METHOD + 1]), Some(Protocol::Other));
        let long = [b"GET /", &[b'x'; LONG_LINE][..]].concat();
        assert_eq!(protocol(&long), Some(Protocol::Http1));
    }

    #[tokio::test]
    async fn pieces_are_put_together() {
        for (bytes, expected) in PROTOCOLS {
            let (mut app, mut stream) = duplex(1);
            let write = tokio::spawn(async move {
                for byte in bytes {
                    if app.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                }
            });
            let mut buffer = BytesMut::new();
            assert_eq!(detect(&mut stream, &mut buffer).await.unwrap(), expected);
            assert!(bytes.starts_with(&buffer));
            drop(stream);
            write.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_lost_when_the_time_is_up() {
        let (mut app, mut stream) = duplex(64);
        let mut buffer = BytesMut::new();
        app.write_all(b"GET / HT").await.unwrap();
        let wait = tokio::time::timeout(Duration::from_secs(1), detect(&mut stream, &mut buffer));
        assert!(wait.await.is_err());
        assert_eq!(&buffer[..], b"GET / HT");
        app.write_all(b"TP/1.1\r\n").await.unwrap();
        let protocol = detect(&mut stream, &mut buffer).await.unwrap();
        assert_eq!(
            (protocol, &buffer[..]),
            (Protocol::Http1, &b"GET / HTTP/1.1\r\n"[..])
        );
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_another_protocol() {
        let (mut app, mut stream) = duplex(64);
        app.write_all(b"GET").await.unwrap();
        drop(app);
        let protocol = detect(&mut stream, &mut BytesMut::new()).await.unwrap();
        assert_eq!(protocol, Protocol::Other);
    }
}
