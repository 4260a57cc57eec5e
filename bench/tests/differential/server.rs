//! A model server that writes down what it got, and answers as the request asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::raw::{self, Message};

#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<HashMap<String, Vec<Message>>>>);

impl Seen {
    /// What came under this name of a case; forgotten then.
    pub fn take(&self, case: &str) -> Vec<Message> {
        let mut seen = self.0.lock().expect("no panic before");
        seen.remove(case).unwrap_or_default()
    }

    fn note(&self, message: &Message) {
        let case = message.get("x-case").unwrap_or_default();
        let mut seen = self.0.lock().expect("no panic before");
        seen.entry(case).or_default().push(message.clone());
    }
}

/// Starts it.
pub async fn start() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = Seen::default();
    let noted = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(BufReader::new(stream), noted.clone()));
        }
    });
    (address, seen)
}

async fn serve(mut stream: BufReader<TcpStream>, seen: Seen) {
    while let Ok(mut request) = raw::head(&mut stream).await {
        let kind = request.get("x-answer").unwrap_or_default();
        let old = request.start[2] == "HTTP/1.0";
        let close = request
            .get("connection")
            .is_some_and(|c| c.contains("close"))
            || old
                && !request
                    .get("connection")
                    .is_some_and(|c| c.contains("keep-alive"));
        let early = kind == "early" || kind == "refuse";
        let write = async |stream: &mut BufReader<TcpStream>, bytes: &[u8]| {
            let written = stream.get_mut().write_all(bytes).await;
            written.is_ok()
        };
        if kind == "refuse" {
            seen.note(&request);
            write(&mut stream, b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
            return;
        }
        if request.get("expect").is_some() && !early {
            write(&mut stream, b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        if early {
            write(&mut stream, &answer("text", &request)).await;
        }
        raw::body(&mut stream, &mut request, false).await;
        seen.note(&request);
        if !request.whole {
            return;
        }
        if early {
            continue;
        }
        match &kind[..] {
            "pieces" => {
                write(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                for _ in 0..3 * u8::from(request.start[0] != "HEAD") {
                    write(&mut stream, b"9\r\ndata: 1\n\n\r\n").await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                if request.start[0] != "HEAD" {
                    write(&mut stream, b"0\r\n\r\n").await;
                }
            }
            "broken" => {
                write(
                    &mut stream,
                    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
                )
                .await;
                return;
            }
            "broken-chunks" => {
                write(
                    &mut stream,
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                )
                .await;
                return;
            }
            "until-close" => {
                write(
                    &mut stream,
                    b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nto the end",
                )
                .await;
                return;
            }
            kind => {
                write(&mut stream, &answer(kind, &request)).await;
            }
        }
        if close {
            return;
        }
    }
}

/// An answer that is written at once.
fn answer(kind: &str, request: &Message) -> Vec<u8> {
    let (status, fields, body): (&str, String, &[u8]) = match kind {
        "empty" => ("200 OK", "Content-Length: 0\r\n".into(), b""),
        "204" => ("204 No Content", "X-Why: nothing\r\n".into(), b""),
        "304" => ("304 Not Modified", "Content-Length: 5\r\nETag: \"x\"\r\n".into(), b""),
        "404" => ("404 Not Found", "Content-Length: 4\r\n".into(), b"none"),
        "500" => ("500 Internal Server Error", "Content-Length: 4\r\n".into(), b"oops"),
        "599" => ("599 Own", "Content-Length: 0\r\n".into(), b""),
        "redirect" => ("302 Found", "Location: /else%20where?a=b#c\r\nContent-Length: 0\r\n".into(), b""),
        "reason" => ("200 Fine By Me", "Content-Length: 2\r\n".into(), b"ok"),
        "hints" => ("200 OK", "Content-Length: 2\r\n".into(), b"ok"),
        "chunked" => ("200 OK", "Transfer-Encoding: chunked\r\n".into(), b"3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\n\r\n"),
        "trailers" => (
            "200 OK",
            "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n".into(),
            b"3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
        ),
        "fields" => (
            "200 OK",
            "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nX-Dup: one\r\nx-dup: two\r\nX-Empty:\r\n\
             X-Odd: \u{e9}t\u{e9}\t|\r\nVary: a, b\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nServer: own/1\r\n\
             Server-Timing: db;dur=3\r\nAlt-Svc: clear\r\nVia: 1.1 x\r\nContent-Length: 2\r\n"
                .into(),
            b"ok",
        ),
        "hop" => (
            "200 OK",
            "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n".into(),
            b"ok",
        ),
        "large-head" => ("200 OK", format!("X-Large: {}\r\nContent-Length: 2\r\n", "v".repeat(40_000)), b"ok"),
        "large" => ("200 OK", format!("Content-Length: {}\r\n", LARGE.len()), &LARGE[..]),
        "close" => ("200 OK", "Connection: close\r\nContent-Length: 2\r\n".into(), b"ok"),
        _ => ("200 OK", "Content-Type: text/plain\r\nContent-Length: 5\r\n".into(), b"hello"),
    };
    let mut bytes = Vec::new();
    if kind == "hints" {
        bytes.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n");
    }
    bytes.extend_from_slice(format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes());
    if request.start[0] != "HEAD" {
        bytes.extend_from_slice(body);
    }
    bytes
}

static LARGE: [u8; 300_000] = [b'z'; 300_000];
