//! The device sidecar between real sockets: an app, an edge that records what it gets, and a model
//! server that is called directly.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Incoming;
use sidecod_device::app::App;
use sidecod_device::config::Config;
use sidecod_device::ingress::{Ingress, Way};
use sidecod_sidecar::body::{full, streamed};
use sidecod_sidecar::listen::{self, Connections, Http, ServerLimits};
use sidecod_sidecar::problem::problem;
use sidecod_sidecar::shutdown::{Shutdown, Trigger};
use sidecod_sidecar::{Body, BoxError};
use sidecod_wire::frame::{self, Frame};
use sidecod_wire::header;
use sidecod_wire::limits::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What a server got: headers, then each piece of the body as it came.
type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An edge that records requests; it refuses frames with `refusal`, if that is given.
async fn edge(
    seen: Seen,
    refusal: Option<&'static str>,
    pieces: mpsc::Sender<Bytes>,
) -> (SocketAddr, Trigger) {
    let (listener, address) = bind().await;
    let (trigger, shutdown) = Shutdown::new();
    let service = listen::service(move |request: Request<Incoming>| {
        let (seen, pieces) = (seen.clone(), pieces.clone());
        async move {
            let (parts, mut body) = request.into_parts();
            let mut whole = Vec::new();
            while let Some(piece) = body.frame().await {
                if let Ok(data) = piece.unwrap().into_data() {
                    whole.extend_from_slice(&data);
                    let _ = pieces.send(data).await;
                }
            }
            let framed = parts
                .headers
                .get("content-type")
                .is_some_and(|t| t == frame::CONTENT_TYPE);
            seen.lock().unwrap().push((parts.headers, whole.into()));
            match refusal {
                Some(kind) if framed => problem(StatusCode::CONFLICT, kind, "on purpose"),
                _ => answer("edge"),
            }
        }
    });
    tokio::spawn(async move {
        listen::http2(listener, &ServerLimits::default(), service, shutdown).await;
    });
    (address, trigger)
}

/// A model server that says that it was asked directly.
async fn model_server() -> (SocketAddr, Trigger) {
    let (listener, address) = bind().await;
    let (trigger, shutdown) = Shutdown::new();
    let service = listen::service(|_| async { answer("direct") });
    tokio::spawn(async move {
        listen::http1(listener, &ServerLimits::default(), service, shutdown).await;
    });
    (address, trigger)
}

fn answer(text: &'static str) -> Response<Body> {
    let mut answer = Response::new(full(text));
    let headers = answer.headers_mut();
    headers.insert("connection", "x-hop".parse().unwrap());
    headers.insert("x-hop", "1".parse().unwrap());
    headers.insert("x-own", "kept".parse().unwrap());
    headers.insert("server-timing", "upstream;dur=1.0".parse().unwrap());
    answer
}

/// A device sidecar in front of the two.
async fn device(edge: SocketAddr, direct: Option<SocketAddr>, more: &str) -> (SocketAddr, Trigger) {
    device_of(&format!("\"http://{edge}\""), direct, more).await
}

/// The same in front of edges whose URLs stand as in the configuration.
async fn device_of(edges: &str, direct: Option<SocketAddr>, more: &str) -> (SocketAddr, Trigger) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.toml");
    let direct = direct
        .map(|address| format!("direct = \"http://{address}\""))
        .unwrap_or_default();
    let bundle = root.join("onnx/codecs/photo-v0").display().to_string();
    let text = format!(
        "admin = \"127.0.0.1:0\"\n{direct}\n\
         [listen]\nreverse = [\"127.0.0.1:0\"]\n\
         [edge]\nurl = {edges}\nplaintext = true\n\
         [codec]\nbundle = {bundle:?}\n\
         [[route]]\nname = \"photos\"\npath = \"/p/*\"\n{more}\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&file, &[]).unwrap();
    let app = Arc::new(App::new(&config).unwrap());
    let (listener, address) = bind().await;
    let (trigger, shutdown) = Shutdown::new();
    let ingress = Ingress::new(app, Http::new(&config.server), shutdown);
    let connections = Connections::new(&config.server);
    tokio::spawn(ingress.serve(Way::Reverse, listener, connections));
    (address, trigger)
}

fn photo() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos/goldfish.jpg"))
        .unwrap()
}

/// Sends the head and the body, and reads the answer to its end.
async fn post(device: SocketAddr, path: &str, headers: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(device).await.unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: app.example\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn nowhere() -> mpsc::Sender<Bytes> {
    mpsc::channel(1).0
}

#[tokio::test]
async fn a_photo_crosses_as_a_frame_with_the_headers_that_are_end_to_end() {
    let seen = Seen::default();
    let (edge, _edge) = edge(seen.clone(), None, nowhere()).await;
    let (device, _device) = device(edge, None, "").await;
    let headers = "content-type: image/jpeg\r\nx-own: 7\r\nkeep-alive: timeout=5\r\nsidecod-token: forged\r\n";
    let answer = post(device, "/p/x?top=5", headers, &photo()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("edge"),
        "{answer}"
    );
    assert!(answer.contains("x-own: kept"));
    for gone in ["x-hop", "server-timing", "sidecod"] {
        assert!(!answer.to_lowercase().contains(gone), "{gone} in {answer}");
    }
    let seen = seen.lock().unwrap();
    let (headers, body) = &seen[0];
    assert_eq!(headers["x-own"], "7");
    assert_eq!(headers["sidecod-upstream"], "default");
    assert_eq!(headers["content-length"], body.len().to_string().as_str());
    for gone in ["keep-alive", "connection", "sidecod-token"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    let frame = Frame::decode(body, &Limits::default()).unwrap();
    assert_eq!(frame.content_type.as_deref(), Some("image/jpeg"));
    assert!(frame.skeleton.bytes.is_empty() && frame.slots.len() == 1);
    assert!(body.len() * 2 < photo().len());
}

#[tokio::test]
async fn a_refused_frame_is_followed_by_the_original() {
    let seen = Seen::default();
    let (edge, _edge) = edge(seen.clone(), Some("unknown-bundle"), nowhere()).await;
    let (device, _device) = device(edge, None, "").await;
    let answer = post(device, "/p/x", "content-type: image/jpeg\r\n", &photo()).await;
    assert!(answer.ends_with("edge"), "{answer}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].0["content-type"], "image/jpeg");
    assert_eq!(seen[1].1, photo());
}

#[tokio::test]
async fn without_an_edge_the_model_server_is_asked_directly() {
    let (listener, gone) = bind().await;
    drop(listener);
    let (direct, _direct) = model_server().await;
    let (device, _device) = device(gone, Some(direct), "").await;
    for (path, body) in [("/p/x", photo()), ("/other", b"streamed".to_vec())] {
        let answer = post(device, path, "content-type: image/jpeg\r\n", &body).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("direct"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn without_any_server_the_app_gets_an_error_of_the_sidecar() {
    let (listener, gone) = bind().await;
    drop(listener);
    let (device, _device) = device(gone, None, "").await;
    let answer = post(device, "/p/x", "content-type: image/jpeg\r\n", &photo()).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(
        answer.contains("application/problem+json")
            && answer.contains("sidecod-error: edge-unreachable")
    );
}

#[tokio::test]
async fn larger_bodies_and_vouched_for_bodies_pass_through() {
    let seen = Seen::default();
    let (edge, _edge) = edge(seen.clone(), None, nowhere()).await;
    let (device, _device) = device(edge, None, "max_body = 1000").await;
    post(device, "/p/x", "content-type: image/jpeg\r\n", &photo()).await;
    let small = &photo()[..900];
    post(
        device,
        "/p/x",
        "content-type: image/jpeg\r\ncontent-encoding: gzip\r\n",
        small,
    )
    .await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].1, photo());
    assert_eq!(seen[1].1, small);
    assert_eq!(seen[1].0["content-encoding"], "gzip");
}

#[tokio::test]
async fn a_body_of_unknown_length_takes_memory_as_it_arrives() {
    let seen = Seen::default();
    let (edge, _edge) = edge(seen.clone(), None, nowhere()).await;
    // More than may be held of all.
    let (device, _device) = device(edge, None, "max_body = 100_000_000").await;
    let large = vec![7; 65 << 20];
    for body in [&photo(), &large, &photo()] {
        let mut stream = TcpStream::connect(device).await.unwrap();
        let head = format!(
            "POST /p/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: image/jpeg\r\n\
             transfer-encoding: chunked\r\n\r\n{:x}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        stream.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let seen = seen.lock().unwrap();
    let types: Vec<_> = seen.iter().map(|seen| &seen.0["content-type"]).collect();
    assert_eq!(
        types,
        [frame::CONTENT_TYPE, "image/jpeg", frame::CONTENT_TYPE]
    );
    assert!(seen[1].1 == large);
}

#[tokio::test]
async fn what_no_route_takes_is_streamed() {
    let (pieces, mut arrived) = mpsc::channel(4);
    let (edge, _edge) = edge(Seen::default(), None, pieces).await;
    let (device, _device) = device(edge, None, "").await;
    let mut stream = TcpStream::connect(device).await.unwrap();
    let head = "POST /other HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"5\r\nfirst\r\n").await.unwrap();
    // The edge has the first piece while the app has not sent the last.
    assert_eq!(arrived.recv().await.unwrap(), "first");
    stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(arrived.recv().await.unwrap(), "last");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.ends_with("edge\r\n0\r\n\r\n") || answer.ends_with("edge"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let (listener, address) = bind().await;
    let (_trigger, shutdown) = Shutdown::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = listen::service(move |request: Request<Incoming>| {
        let count = count.clone();
        async move {
            // A probe of the link may come between.
            let is_probe = request.headers().contains_key(header::ASK);
            let _ = request.into_body().collect().await;
            if is_probe {
                return answer("a probe's");
            }
            if count.fetch_add(1, Ordering::Relaxed) > 0 {
                return answer("whole");
            }
            let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
            tokio::spawn(async move {
                sender.send_data("wh".into()).await.unwrap();
                sender.abort("of the test".into());
            });
            let mut answer = Response::new(streamed(body));
            answer
                .headers_mut()
                .insert("content-length", "5".parse().unwrap());
            answer
        }
    });
    tokio::spawn(async move {
        listen::http2(listener, &ServerLimits::default(), service, shutdown).await;
    });
    let (device, _device) = device(address, None, "").await;
    let answer = post(device, "/p/x", "content-type: image/jpeg\r\n", &photo()).await;
    assert!(answer.ends_with("\r\n\r\nwhole"), "{answer}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_edge_that_is_not_ready_is_passed_over() {
    let (listener, address) = bind().await;
    let (_trigger, shutdown) = Shutdown::new();
    let service = listen::service(|_| async {
        problem(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "on purpose")
    });
    tokio::spawn(async move {
        listen::http2(listener, &ServerLimits::default(), service, shutdown).await;
    });
    let seen = Seen::default();
    let (ready, _ready) = edge(seen.clone(), None, nowhere()).await;
    let (device, _device) = device_of(
        &format!("[\"http://{address}\", \"http://{ready}\"]"),
        None,
        "",
    )
    .await;
    for _ in 0..8 {
        let answer = post(device, "/p/x", "content-type: image/jpeg\r\n", &photo()).await;
        assert!(answer.ends_with("edge"), "{answer}");
    }
    // All of them as codes: the other edge has not looked at any.
    for (_, body) in &*seen.lock().unwrap() {
        Frame::decode(body, &Limits::default()).unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_asks_nothing_ends() {
    let server = "[server]\nheader_timeout_ms = 50";
    let (device, _trigger) = device(bind().await.1, None, server).await;
    for begun in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "POST /p/",
        "GET / HTTP/1.1\r\nhost:",
    ] {
        let mut stream = TcpStream::connect(device).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_mins(1), stream.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        assert!(!answer.starts_with("HTTP/1.1 2"), "{begun:?}: {answer}");
    }
}
