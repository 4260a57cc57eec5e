//! HTTP through both programs where it takes more than one request and one answer: protocols that
//! change, streams, connections that end early, and bodies that are larger than memory may be.

#![allow(clippy::expect_used)] // a test fails by panicking

#[path = "differential/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "differential/pair.rs"]
mod pair;
#[path = "differential/raw.rs"]
#[allow(dead_code)]
mod raw;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pair::Pair;
use sidecod_bench::stack::workspace;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// Longest wait for anything, on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that does what the path says.
struct Server {
    address: SocketAddr,
    /// Lets `/waits` and `/stream` go on.
    go_on: Arc<Notify>,
    /// What has happened.
    events: mpsc::UnboundedReceiver<&'static str>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let go_on = Arc::new(Notify::new());
        let (tell, events) = mpsc::unbounded_channel();
        let gate = go_on.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(BufReader::new(stream), gate.clone(), tell.clone()));
            }
        });
        Self {
            address,
            go_on,
            events,
        }
    }

    async fn event(&mut self) -> &'static str {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("something happens").expect("the server runs")
    }
}

async fn serve(
    mut stream: BufReader<TcpStream>,
    go_on: Arc<Notify>,
    tell: mpsc::UnboundedSender<&'static str>,
) {
    while let Ok(mut request) = raw::head(&mut stream).await {
        let path = request.start[1].clone();
        if path == "/upload" {
            let length = request.get("content-length").and_then(|l| l.parse().ok());
            let mut counted = (&mut stream).take(length.expect("a length"));
            let read = tokio::io::copy(&mut counted, &mut tokio::io::sink()).await;
            write(&mut stream, &text(&read.expect("a body").to_string())).await;
            continue;
        }
        if path == "/early" {
            let head =
                "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
            write(&mut stream, head).await;
            let _ = stream.get_mut().shutdown().await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            return;
        }
        if path == "/half" {
            let _ = tell.send("waits");
        }
        raw::body(&mut stream, &mut request, false).await;
        if !request.whole {
            let _ = tell.send("gone");
            return;
        }
        match &path[..] {
            "/echo" => {
                let upgrade = request.get("upgrade").unwrap_or_default();
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {upgrade}\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: yes\r\n\r\n"
                );
                write(&mut stream, &head).await;
                let mut piece = [0; 1000];
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    stream
                        .get_mut()
                        .write_all(&piece[..read])
                        .await
                        .expect("sent");
                }
                write(&mut stream, "bye").await;
                return;
            }
            "/stream" => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
                write(&mut stream, head).await;
                go_on.notified().await;
                write(&mut stream, "4\r\nlast\r\n0\r\n\r\n").await;
            }
            "/endless" => {
                write(
                    &mut stream,
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                )
                .await;
                let _ = tell.send("streams");
                while stream.get_mut().write_all(b"4\r\nmore\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let _ = tell.send("gone");
                return;
            }
            "/large" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n");
                write(&mut stream, &head).await;
                let mut zeros = tokio::io::repeat(0).take(GIB);
                tokio::io::copy(&mut zeros, stream.get_mut())
                    .await
                    .expect("sent");
            }
            path if path == "/waits" || path.starts_with("/predictions/") => {
                let _ = tell.send("waits");
                let mut byte = [0];
                tokio::select! {
                    () = go_on.notified() => write(&mut stream, &text("late")).await,
                    _ = stream.read(&mut byte) => {
                        let _ = tell.send("gone");
                        return;
                    }
                }
            }
            path => write(&mut stream, &text(path)).await,
        }
    }
}

async fn write(stream: &mut BufReader<TcpStream>, text: &str) {
    // Who is gone does not read it.
    let _ = stream.get_mut().write_all(text.as_bytes()).await;
}

fn text(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Connects and sends.
async fn send(to: SocketAddr, text: &str) -> BufReader<TcpStream> {
    let mut stream = client::connect(to).await;
    stream
        .get_mut()
        .write_all(text.as_bytes())
        .await
        .expect("sent");
    stream
}

async fn read_to_end(stream: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    read.expect("an end in time").expect("a good end");
    rest
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
    )
}

async fn echoes(to: SocketAddr) {
    // The first bytes of the new protocol come with the request.
    let mut stream = send(to, &(upgrade("/echo") + "early")).await;
    let head = timeout(PATIENCE, raw::head(&mut stream)).await;
    let head = head.expect("an answer in time").expect("an answer");
    assert_eq!(head.status(), 101, "{head:?}");
    assert_eq!(head.get("upgrade").as_deref(), Some("websocket"));
    let connection = head.get("connection").map(|value| value.to_lowercase());
    assert_eq!(connection.as_deref(), Some("upgrade"));
    assert_eq!(head.get("sec-websocket-accept").as_deref(), Some("yes"));
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.expect("bytes");
    assert_eq!(&back, b"early");
    // No HTTP, and more than one buffer.
    let data: Vec<u8> = (0..100_000_u32).map(|n| (n * 7) as u8).collect();
    let mut back = vec![0; data.len()];
    let (mut read, mut write) = stream.get_mut().split();
    let both = async { tokio::join!(write.write_all(&data), read.read_exact(&mut back)) };
    let (sent, got) = timeout(PATIENCE, both).await.expect("bytes in time");
    sent.expect("sent");
    got.expect("bytes");
    assert_eq!(back, data);
    // The server still speaks when the app has ended.
    stream.get_mut().shutdown().await.expect("half-closed");
    assert_eq!(read_to_end(&mut stream).await, b"bye");
}

#[tokio::test]
async fn protocols_change_through_both_and_directly() {
    let server = Server::start().await;
    let pair = Pair::start(server.address).await;
    let device = pair.address();
    echoes(server.address).await;
    echoes(device).await;

    let mut refused = send(device, &upgrade("/plain")).await;
    let got = client::answer(&mut refused, "GET")
        .await
        .answer
        .expect("an answer");
    assert_eq!((got.status(), &got.body[..]), (200, &b"/plain"[..]));
    assert!(read_to_end(&mut refused).await.is_empty());

    // HTTP/2 is not taken up, and costs no connection.
    let offer = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    let mut stream = send(device, &(offer.to_owned() + &get("/b"))).await;
    for body in ["/a", "/b"] {
        let got = client::answer(&mut stream, "GET")
            .await
            .answer
            .expect("an answer");
        assert_eq!(got.body, body.as_bytes());
    }

    pair.edge.stop().expect("the edge drains");
    echoes(device).await;
}

#[tokio::test]
async fn connections_and_streams_behave_as_without_the_sidecars() {
    let mut server = Server::start().await;
    let pair = Pair::start(server.address).await;
    let device = pair.address();

    // Pipelining: answers in order.
    let all: String = (0..9).map(|n| get(&format!("/{n}"))).collect();
    let mut stream = send(device, &all).await;
    for n in 0..9 {
        let got = client::answer(&mut stream, "GET")
            .await
            .answer
            .expect("an answer");
        assert_eq!(String::from_utf8_lossy(&got.body), format!("/{n}"));
    }

    // The first piece comes while the answer is open.
    let mut stream = send(device, &get("/stream")).await;
    let head = timeout(PATIENCE, raw::head(&mut stream))
        .await
        .expect("in time");
    assert_eq!(head.expect("an answer").status(), 200);
    let mut first = [0; 10];
    let read = timeout(PATIENCE, stream.read_exact(&mut first)).await;
    read.expect("the first piece in time").expect("a piece");
    assert_eq!(&first, b"5\r\nfirst\r\n");
    server.go_on.notify_one();
    let mut rest = [0; 14];
    let read = timeout(PATIENCE, stream.read_exact(&mut rest)).await;
    read.expect("the rest in time").expect("the rest");
    assert_eq!(&rest, b"4\r\nlast\r\n0\r\n\r\n");

    // An app that has sent all and waits gets its answer.
    let mut stream = send(device, &get("/waits")).await;
    assert_eq!(server.event().await, "waits");
    stream.get_mut().shutdown().await.expect("half-closed");
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.go_on.notify_one();
    let got = client::answer(&mut stream, "GET")
        .await
        .answer
        .expect("an answer");
    assert_eq!(got.body, b"late");

    // One that has gone ends the call: before the answer, with a coded request, in the answer, in
    // the request.
    let gone = send(device, &get("/waits")).await;
    assert_eq!(server.event().await, "waits");
    drop(gone);
    assert_eq!(server.event().await, "gone");

    let photo = workspace().join("examples/photos/goldfish.jpg");
    let photo = std::fs::read(photo).expect("the demo's photo");
    let length = photo.len();
    let head = format!(
        "POST /predictions/x HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut gone = send(device, &head).await;
    gone.get_mut().write_all(&photo).await.expect("sent");
    assert_eq!(server.event().await, "waits");
    drop(gone);
    assert_eq!(server.event().await, "gone");

    let gone = send(device, &get("/endless")).await;
    assert_eq!(server.event().await, "streams");
    drop(gone);
    assert_eq!(server.event().await, "gone");

    let head = "POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123";
    let gone = send(device, head).await;
    assert_eq!(server.event().await, "waits");
    drop(gone);
    assert_eq!(server.event().await, "gone");

    // A head over the limit.
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    let mut stream = client::connect(device).await;
    let _ = stream.get_mut().write_all(large.as_bytes()).await;
    let got = client::answer(&mut stream, "GET")
        .await
        .answer
        .expect("an answer");
    assert_eq!(got.status(), 431);

    // An answer that comes before the body is read even by an app that sends all of it first.
    let body = vec![0; 8 << 20];
    let head = format!(
        "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = send(device, &head).await;
    let _ = timeout(PATIENCE, stream.get_mut().write_all(&body))
        .await
        .expect("read on");
    let got = client::answer(&mut stream, "POST")
        .await
        .answer
        .expect("an answer");
    assert_eq!((got.status(), &got.body[..]), (413, &b"big"[..]));
}

const GIB: u64 = 1 << 30;

/// Peak memory of a process, in bytes.
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("its peak") << 10
}

#[tokio::test]
async fn a_gigabyte_each_way_takes_no_memory() {
    let server = Server::start().await;
    let pair = Pair::start(server.address).await;
    // The edge holds libtorch and a bundle from the start: its peak is counted from here (proc(5),
    // clear_refs).
    let forgotten = std::fs::write(format!("/proc/{}/clear_refs", pair.edge.id()), "5");
    forgotten.expect("Linux, and a process of one's own");
    let ready = peak(pair.edge.id());
    let begin = std::time::Instant::now();

    let head = format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n");
    let mut stream = send(pair.address(), &head).await;
    let zeros = vec![0; 64 << 10];
    for _ in 0..GIB / zeros.len() as u64 {
        stream.get_mut().write_all(&zeros).await.expect("sent");
    }
    let got = client::answer(&mut stream, "POST")
        .await
        .answer
        .expect("an answer");
    assert_eq!(String::from_utf8_lossy(&got.body), GIB.to_string());
    let up = begin.elapsed();

    stream
        .get_mut()
        .write_all(get("/large").as_bytes())
        .await
        .expect("sent");
    assert_eq!(
        raw::head(&mut stream).await.expect("an answer").status(),
        200
    );
    let mut body = (&mut stream).take(GIB);
    let read = tokio::io::copy(&mut body, &mut tokio::io::sink()).await;
    assert_eq!(read.expect("a body"), GIB);

    let (device, edge) = (
        peak(pair.device.id()),
        peak(pair.edge.id()).saturating_sub(ready),
    );
    println!(
        "1 GiB up in {up:.1?}, up and down in {:.1?}: peak memory of proxy-device {} KiB, of proxy-edge {} KiB over its {} KiB when ready",
        begin.elapsed(),
        device >> 10,
        edge >> 10,
        ready >> 10,
    );
    assert!(device < 40 << 20, "{device} bytes in proxy-device");
    assert!(
        edge < 40 << 20,
        "{edge} bytes in proxy-edge over its ready state"
    );
}
