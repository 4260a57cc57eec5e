//! The forward and the transparent way in, between real sockets. That the system redirects is
//! tested in `bench/tests/transparent.rs`.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidecod_device::app::App;
use sidecod_device::config::Config;
use sidecod_device::ingress::{Ingress, Way, transparent};
use sidecod_sidecar::body::{self, BoxError};
use sidecod_sidecar::listen::{self, Connections, Http, ServerLimits};
use sidecod_sidecar::shutdown::{Shutdown, Trigger};
use sidecod_wire::frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver};

/// Long enough for a machine that is busy; only a test that fails waits so long.
const LONG: Duration = Duration::from_mins(1);

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    bind().await.1
}

/// A server that tells what it was asked, and answers with its name and a trailer.
async fn server(
    http2: bool,
    name: &'static str,
) -> (SocketAddr, Receiver<(Parts, Bytes)>, Trigger) {
    let (listener, address) = bind().await;
    let (trigger, shutdown) = Shutdown::new();
    let (asked, requests) = mpsc::channel(8);
    let service = listen::service(move |request: Request<Incoming>| {
        let asked = asked.clone();
        async move {
            let (parts, body) = request.into_parts();
            let received = body.collect().await.unwrap().to_bytes();
            asked.send((parts, received)).await.unwrap();
            let (mut sender, channel) = Channel::<Bytes, BoxError>::new(2);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            sender.send_data(name.into()).await.unwrap();
            sender.send_trailers(trailers).await.unwrap();
            Response::new(body::streamed(channel))
        }
    });
    tokio::spawn(async move {
        let limits = ServerLimits::default();
        if http2 {
            listen::http2(listener, &limits, service, shutdown).await;
        } else {
            listen::http1(listener, &limits, service, shutdown).await;
        }
    });
    (address, requests, trigger)
}

/// A device sidecar.
struct Device {
    app: Arc<App>,
    ingress: Ingress,
    _trigger: Trigger,
}

impl Device {
    fn new(edge: SocketAddr, hosts: &[String]) -> Self {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/codecs/photo-v0");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("device.toml");
        let text = format!(
            "admin = \"127.0.0.1:0\"\n[listen]\nforward = [\"127.0.0.1:0\"]\n\
             detect_timeout_ms = 50\n[edge]\nurl = \"http://{edge}\"\nplaintext = true\n\
             [codec]\nbundle = {:?}\n[[route]]\nname = \"photos\"\npath = \"/p/*\"\n\
             [[destination]]\nhosts = {hosts:?}\nupstream = \"m\"\n",
            bundle.display().to_string()
        );
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file, &[]).unwrap();
        let app = Arc::new(App::new(&config).unwrap());
        let (trigger, shutdown) = Shutdown::new();
        let ingress = Ingress::new(app.clone(), Http::new(&config.server), shutdown);
        Self {
            app,
            ingress,
            _trigger: trigger,
        }
    }

    /// A listener of its own.
    async fn listen(&self) -> (TcpListener, SocketAddr) {
        let (listener, address) = bind().await;
        self.app.listens(address);
        (listener, address)
    }

    async fn forward(&self) -> SocketAddr {
        let (listener, address) = self.listen().await;
        let connections = Connections::new(&ServerLimits::default());
        tokio::spawn(
            self.ingress
                .clone()
                .serve(Way::Forward, listener, connections),
        );
        address
    }

    /// A listener whose connections were to go to `original`.
    async fn redirected(&self, original: SocketAddr) -> SocketAddr {
        let (listener, address) = self.listen().await;
        let connections = Connections::new(&ServerLimits::default());
        let ingress = self.ingress.clone();
        let (trigger, shutdown) = Shutdown::new();
        tokio::spawn(async move {
            let _trigger = trigger;
            let serve = |stream, peer, place| {
                transparent::serve_to(ingress.clone(), stream, peer, original, place)
            };
            connections.serve(listener, shutdown, serve).await;
        });
        address
    }
}

/// Sends bytes, ends this side, and reads to the end.
async fn exchange(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    read_all(stream).await
}

/// Sends a request that closes the connection, and reads the answer.
async fn ask(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    String::from_utf8(read_all(stream).await).unwrap()
}

async fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut all));
    read.await.unwrap().unwrap();
    all
}

fn photo() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos/goldfish.jpg"))
        .unwrap()
}

/// A POST of the photo.
fn post(target: &str, headers: &str) -> Vec<u8> {
    let photo = photo();
    let head = format!(
        "POST {target} HTTP/1.1\r\ncontent-type: image/jpeg\r\ncontent-length: {}\r\n\
         connection: close\r\n{headers}\r\n",
        photo.len()
    );
    [head.as_bytes(), &photo].concat()
}

async fn post_and_read(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request).await.unwrap();
    String::from_utf8(read_all(stream).await).unwrap()
}

#[tokio::test]
async fn a_listed_destination_of_the_forward_proxy_is_reached_through_the_edge() {
    let (edge, mut asked, _edge) = server(true, "edge").await;
    let device = Device::new(edge, &["model.lan:8080".to_owned()]);
    let forward = device.forward().await;
    let headers =
        "host: other.example\r\nproxy-authorization: Basic eDp5\r\nproxy-connection: close\r\n";
    let answer = post_and_read(forward, &post("http://Model.lan:8080/p/x?y=z", headers)).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("edge"),
        "{answer}"
    );
    let (parts, body) = asked.recv().await.unwrap();
    // RFC 9112, section 3.2.2: the target counts, not the Host beside it.
    assert_eq!(parts.uri, "http://Model.lan:8080/p/x?y=z");
    assert_eq!(parts.headers["sidecod-upstream"], "m");
    assert_eq!(parts.headers["content-type"], frame::CONTENT_TYPE);
    assert!(body.len() * 2 < photo().len());
    for gone in [
        "host",
        "proxy-authorization",
        "proxy-connection",
        "sidecod-protocol",
    ] {
        assert!(!parts.headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn where_the_edge_is_gone_a_listed_destination_is_called_itself() {
    let (model, mut asked, _model) = server(false, "model").await;
    let device = Device::new(nobody().await, &[model.to_string()]);
    let forward = device.forward().await;
    let target = format!("http://{model}/p/x");
    let answer = post_and_read(forward, &post(&target, "host: x\r\n")).await;
    assert!(answer.contains("model"), "{answer}");
    let (parts, body) = asked.recv().await.unwrap();
    assert_eq!(
        (parts.uri.to_string().as_str(), &body[..]),
        ("/p/x", &photo()[..])
    );
    assert_eq!(parts.headers["host"], model.to_string().as_str());
}

#[tokio::test]
async fn any_other_destination_is_called_as_any_proxy_does_it() {
    let (edge, mut at_edge, _edge) = server(true, "edge").await;
    let (other, mut asked, _other) = server(false, "other").await;
    let device = Device::new(edge, &["model.lan:8080".to_owned()]);
    let forward = device.forward().await;
    // The path is one of a route.
    let target = format!("http://{other}/p/x");
    let answer = post_and_read(forward, &post(&target, "host: wrong\r\nx-own: 7\r\n")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("other"),
        "{answer}"
    );
    let (parts, body) = asked.recv().await.unwrap();
    assert_eq!(
        (parts.uri.to_string().as_str(), &body[..]),
        ("/p/x", &photo()[..])
    );
    assert_eq!(parts.headers["host"], other.to_string().as_str());
    assert_eq!(parts.headers["x-own"], "7");
    assert!(at_edge.try_recv().is_err());
    let gone = nobody().await;
    let answer = ask(
        forward,
        &format!("GET http://{gone}/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("sidecod-error"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_a_forward_proxy_cannot_take_is_refused_with_a_reason() {
    let device = Device::new(nobody().await, &["model.lan:8080".to_owned()]);
    let forward = device.forward().await;
    for (line, says) in [
        ("GET /p/x", "this listener is a forward proxy"),
        ("OPTIONS *", "this listener is a forward proxy"),
        ("GET https://model.lan/x", "CONNECT"),
        ("GET http://me:secret@model.lan/x", "a user or a password"),
        ("CONNECT model.lan", "CONNECT wants host:port"),
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = ask(forward, &request).await;
        let refused = answer.starts_with("HTTP/1.1 400") && answer.contains("problem+json");
        assert!(refused && answer.contains(says), "{line}: {answer}");
    }
}

/// A server that reads to the end and then answers, which only half-closed connections can.
async fn late_answerer() -> SocketAddr {
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                all.reverse();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    address
}

#[tokio::test]
async fn connect_opens_a_tunnel_that_keeps_half_closes() {
    let device = Device::new(nobody().await, &["model.lan:8080".to_owned()]);
    let (forward, late) = (device.forward().await, late_answerer().await);
    let mut stream = TcpStream::connect(forward).await.unwrap();
    let head = format!("CONNECT {late} HTTP/1.1\r\nhost: {late}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    // RFC 9110, section 9.3.6.
    assert!(!answer.contains("content-length") && !answer.contains("transfer-encoding"));
    stream.write_all(b"\x16\x03\x00raw").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(stream).await, b"war\x00\x03\x16");
    let gone = nobody().await;
    let answer = ask(
        forward,
        &format!("CONNECT {gone} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("destination-unreachable"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_forward_proxy_does_not_call_itself() {
    let device = Device::new(nobody().await, &["model.lan:8080".to_owned()]);
    let forward = device.forward().await;
    let port = forward.port();
    for line in [
        format!("GET http://{forward}/"),
        format!("GET http://localhost:{port}/"),
        format!("GET http://0.0.0.0:{port}/"),
        format!("CONNECT {forward}"),
        format!("CONNECT localhost:{port}"),
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = ask(forward, &request).await;
        let refused = answer.starts_with("HTTP/1.1 508") && answer.contains("urn:sidecod:loop");
        assert!(refused, "{line}: {answer}");
    }
}

#[tokio::test]
async fn a_redirected_request_keeps_its_host() {
    let (edge, mut asked, _edge) = server(true, "edge").await;
    let original: SocketAddr = "192.0.2.1:8080".parse().unwrap();
    let device = Device::new(edge, &[original.to_string()]);
    let redirected = device.redirected(original).await;
    for (host, authority) in [("host: model.lan\r\n", "model.lan"), ("", "192.0.2.1:8080")] {
        let version = if host.is_empty() {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        };
        let request = format!("GET /x {version}\r\nconnection: close\r\n{host}\r\n");
        let answer = ask(redirected, &request).await;
        assert!(
            answer.contains(" 200 ") && answer.contains("edge"),
            "{answer}"
        );
        let (parts, _) = asked.recv().await.unwrap();
        assert_eq!(parts.uri, format!("http://{authority}/x").as_str());
        assert_eq!(parts.headers["sidecod-upstream"], "m");
    }
}

#[tokio::test]
async fn a_request_that_begins_late_is_still_one() {
    let (edge, mut asked, _edge) = server(true, "edge").await;
    // A model server that accepts and says nothing.
    let (silent, original) = bind().await;
    let device = Device::new(edge, &[original.to_string()]);
    let redirected = device.redirected(original).await;
    let mut stream = TcpStream::connect(redirected).await.unwrap();
    // That it is connected to tells that the time for detection is over.
    let (mut unused, _) = silent.accept().await.unwrap();
    stream
        .write_all(&post("/p/x", "host: m\r\n"))
        .await
        .unwrap();
    let answer = String::from_utf8(read_all(stream).await).unwrap();
    assert!(answer.contains("edge"), "{answer}");
    let (parts, _) = asked.recv().await.unwrap();
    assert_eq!(parts.headers["content-type"], frame::CONTENT_TYPE);
    assert_eq!(unused.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let (listener, original) = bind().await;
    let device = Device::new(nobody().await, &[original.to_string()]);
    let redirected = device.redirected(original).await;
    let mut stream = TcpStream::connect(redirected).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"220 hello\r\n").await.unwrap();
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 hello\r\n");
    // Now even what looks like HTTP is not.
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    server.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "GET / HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn what_is_not_http_or_not_listed_goes_on_as_it_is() {
    let late = late_answerer().await;
    let other = Device::new(nobody().await, &["192.0.2.1:8080".to_owned()]);
    let unlisted = other.redirected(late).await;
    let device = Device::new(nobody().await, &[late.to_string()]);
    let listed = device.redirected(late).await;
    for (to, bytes) in [
        (unlisted, &b"GET / HTTP/1.1\r\nHOST:  odd \r\n\r\n"[..]),
        (unlisted, b""),
        (listed, b"\x16\x03\x01 hello"),
        (listed, b"EHLO x\r\n"),
        (listed, b"GET"),
        (listed, b"CONNECT a:1 HTTP/1.1\r\n\r\n"),
        (listed, b""),
    ] {
        let expected: Vec<u8> = bytes.iter().rev().copied().collect();
        assert_eq!(exchange(to, bytes).await, expected, "{bytes:?}");
    }
}

/// Calls over HTTP/2 without an upgrade; the connection's first bytes come one at a time.
async fn call_in_http2(to: SocketAddr) -> (Bytes, HeaderMap) {
    let (near, mut far) = duplex(1);
    tokio::spawn(async move {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let _ = copy_bidirectional(&mut far, &mut stream).await;
    });
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://model.lan/inference.Service/Infer")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"question")))
        .unwrap();
    let answer = tokio::time::timeout(LONG, sender.send_request(request));
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let whole = answer.into_body().collect().await.unwrap();
    let trailers = whole.trailers().cloned().unwrap_or_default();
    (whole.to_bytes(), trailers)
}

#[tokio::test]
async fn http2_with_prior_knowledge_stays_http2_with_its_trailers() {
    let (model, mut at_model, _model) = server(true, "model").await;
    let (edge, mut at_edge, _edge) = server(true, "edge").await;
    let through = Device::new(edge, &[model.to_string()]);
    let without = Device::new(nobody().await, &[model.to_string()]);
    let unlisted = Device::new(nobody().await, &["192.0.2.1:8080".to_owned()]);
    for (device, says) in [
        (&through, "edge"),
        (&without, "model"),
        (&unlisted, "model"),
    ] {
        let redirected = device.redirected(model).await;
        let (body, trailers) = call_in_http2(redirected).await;
        assert_eq!(body, says);
        assert_eq!(trailers["grpc-status"], "0");
        let asked = if says == "edge" {
            &mut at_edge
        } else {
            &mut at_model
        };
        let (parts, body) = asked.recv().await.unwrap();
        assert_eq!(
            (parts.version, &body[..]),
            (Version::HTTP_2, &b"question"[..])
        );
        assert_eq!(parts.uri, "http://model.lan/inference.Service/Infer");
        assert_eq!(parts.headers["te"], "trailers");
        let protocol = parts.headers.get("sidecod-protocol");
        assert_eq!(protocol.is_some_and(|value| value == "h2"), says == "edge");
    }
}

#[tokio::test]
async fn a_connection_that_would_come_back_is_refused() {
    let device = Device::new(nobody().await, &["192.0.2.1:8080".to_owned()]);
    let own = device.forward().await;
    // It was not redirected, so it says that it was to come here.
    let looped = device.redirected(own).await;
    let answer = ask(looped, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 508") && answer.contains("urn:sidecod:loop"),
        "{answer}"
    );
    assert_eq!(exchange(looped, b"not HTTP").await, b"");
    assert_eq!(exchange(looped, b"").await, b"");
    // Silence is no way around it either.
    let stream = TcpStream::connect(looped).await.unwrap();
    assert_eq!(read_all(stream).await, b"");

    // What this sidecar tunnels comes back to it: the second listener stands for the system's rule.
    let nowhere: SocketAddr = "192.0.2.9:1".parse().unwrap();
    let back = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = back.local_addr().unwrap();
    let ingress = device.ingress.clone();
    let (_trigger, shutdown) = Shutdown::new();
    tokio::spawn(async move {
        let connections = Connections::new(&ServerLimits::default());
        let serve = |stream, peer, place| {
            transparent::serve_to(ingress.clone(), stream, peer, nowhere, place)
        };
        connections.serve(back, shutdown, serve).await;
    });
    let first = device.redirected(address).await;
    let answer = ask(first, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 508") && answer.contains("urn:sidecod:loop"),
        "{answer}"
    );
    assert_eq!(exchange(first, b"not HTTP").await, b"");
}
