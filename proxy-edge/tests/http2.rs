//! A request of an app that speaks HTTP/2 without being asked to, as gRPC does.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod common;

use bytes::Bytes;
use common::Edge;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Incoming;
use sidecod_sidecar::body;
use sidecod_sidecar::listen::{self, ServerLimits};
use sidecod_sidecar::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[tokio::test]
async fn the_model_server_is_called_in_http2_where_the_device_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_trigger, shutdown) = Shutdown::new();
    let (asked, mut requests) = mpsc::channel(1);
    let service = listen::service(move |request: Request<Incoming>| {
        let asked = asked.clone();
        async move {
            let (parts, body) = request.into_parts();
            let (mut sender, channel) = Channel::<Bytes, body::BoxError>::new(2);
            let received = body.collect().await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            sender.send_data(received.to_bytes()).await.unwrap();
            sender.send_trailers(trailers).await.unwrap();
            asked.send(parts).await.unwrap();
            Response::new(body::streamed(channel))
        }
    });
    tokio::spawn(async move {
        listen::http2(listener, &ServerLimits::default(), service, shutdown).await;
    });

    let edge = Edge::start(address, "", "").await;
    let client = edge.client().await;
    let request = Request::post("http://model.lan:8080/inference.Service/Infer?x=y")
        .header("sidecod-protocol", "h2")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(body::full("question"))
        .unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"question"[..]));
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    let asked = requests.recv().await.unwrap();
    assert_eq!(asked.version, Version::HTTP_2);
    assert_eq!(asked.uri.authority().unwrap(), "model.lan:8080");
    assert_eq!(
        asked.uri.path_and_query().unwrap(),
        "/inference.Service/Infer?x=y"
    );
    assert_eq!(asked.headers["te"], "trailers");
    assert!(!asked.headers.contains_key("sidecod-protocol"));
    assert!(!asked.headers.contains_key("host"));
}
