//! The same over gRPC: HTTP/2 from the app to the server, one message a call, trailers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidecod_bench::client::Client;
use sidecod_bench::stack::Stack;
use sidecod_sidecar::body::{self, BoxError};
use sidecod_sidecar::listen::{self, ServerLimits};
use sidecod_sidecar::shutdown::Shutdown;
use sidecod_wire::protobuf::{field, put_varint};
use sidecod_wire::slot::Preset;
use sidecod_wire::tensor::{Element, Layout, Notation};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{coded, compare, elements, gzip, numbers, photo, tensors};

const SERVICE: &str = "/inference.GRPCInferenceService";
/// Long enough for a machine that is busy; only a test that fails waits so long.
const LONG: Duration = Duration::from_mins(1);

/// Calls that a server has got, all of each.
type Called = Arc<Mutex<Vec<(Parts, Bytes)>>>;
type AppBody = BoxBody<Bytes, BoxError>;

/// A server that answers a stream with what comes, as it comes, and any other call with a message.
async fn server() -> (SocketAddr, Called) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let called = Called::default();
    let seen = called.clone();
    let service = listen::service(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (parts, body) = request.into_parts();
            if parts.uri.path().ends_with("/ModelStreamInfer") {
                return Response::new(body::streamed(body));
            }
            let body = body.collect().await.expect("a whole body").to_bytes();
            seen.lock().expect("the list").push((parts, body));
            let (mut sender, channel) = Channel::<Bytes, BoxError>::new(2);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a value"));
            let message = Bytes::from_static(b"\0\0\0\0\x02ok");
            sender.send_data(message).await.expect("a reader");
            sender.send_trailers(trailers).await.expect("a reader");
            Response::new(body::streamed(channel))
        }
    });
    tokio::spawn(async move {
        let (_trigger, shutdown) = Shutdown::new();
        listen::http2(listener, &ServerLimits::default(), service, shutdown).await;
    });
    (address, called)
}

/// The programs in front of it, with one route for all calls.
async fn stack(server: SocketAddr) -> Stack {
    let upstream = format!("upstream=[{{name=\"default\", url=\"http://{server}\"}}]");
    let direct = format!("direct=\"http://{server}\"");
    let route = format!(
        "route=[{{name=\"grpc\", path=\"{SERVICE}/*\", shape=\"oip\", tensor={{values=\"imagenet\"}}}}]"
    );
    Stack::start(&["--set", &route, "--set", &direct], &["--set", &upstream])
        .await
        .expect("a stack")
}

/// An app that speaks HTTP/2 without being asked to.
async fn app(stack: &Stack) -> SendRequest<AppBody> {
    let stream = TcpStream::connect(stack.device.address("reverse")).await;
    let io = TokioIo::new(stream.expect("a connection"));
    let (sender, connection) = handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn call(method: &str, encoding: Option<&str>, body: AppBody) -> Request<AppBody> {
    let mut request = Request::post(format!("http://models.lan{SERVICE}/{method}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc+proto")
        .header("x-own", "kept");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    request.body(body).expect("a request")
}

/// A request for one tensor; `rest` stands in its description, `raw` behind it.
fn message(datatype: &str, sides: &[u8], rest: &[u8], raw: &[u8]) -> Vec<u8> {
    let shape: Vec<u8> = sides
        .iter()
        .flat_map(|&side| {
            let mut varint = Vec::new();
            put_varint(&mut varint, side.into());
            varint
        })
        .collect();
    let tensor = [
        field(1, b"picture"),
        field(2, datatype.as_bytes()),
        field(3, &shape),
        rest.to_vec(),
    ];
    let parts = [
        field(1, b"resnet"),
        field(3, b"request 7"),
        field(5, &tensor.concat()),
        field(6, &field(1, b"classes")),
        raw.to_vec(),
    ];
    parts.concat()
}

fn framed(compressed: u8, message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    [&[compressed][..], &length, message].concat()
}

#[tokio::test]
async fn calls_arrive_with_their_tensors() {
    let (server, called) = server().await;
    let stack = stack(server).await;
    let client = Client::default();
    let mut app = app(&stack).await;
    let floats = numbers(Element::F32, Layout::Chw, Notation::Binary, "imagenet");
    let halves = numbers(Element::F16, Layout::Chw, Notation::Binary, "imagenet");
    let bytes = numbers(Element::U8, Layout::Hwc, Notation::Binary, "zero-to-255");
    let file = field(8, &photo("goldfish.jpg"));
    let (planar, rows) = ([1, 3, 224, 224], [1, 224, 224, 3]);
    for (index, (message, encoding, inputs)) in [
        (message("FP32", &planar, b"", &field(7, &floats)), None, 1),
        (
            message("FP16", &planar, b"", &field(7, &halves)),
            Some("gzip"),
            1,
        ),
        (message("UINT8", &rows, b"", &field(7, &bytes)), None, 1),
        (
            message("BYTES", &[2, 1], b"", &field(7, &elements())),
            None,
            2,
        ),
        (
            message("BYTES", &[1], &field(5, &file), b""),
            Some("gzip"),
            1,
        ),
        (
            message("FP32", &planar, &field(5, &field(6, &floats)), b""),
            None,
            1,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("case {index}");
        let plain = framed(0, &message);
        let sent = match encoding {
            Some(_) => framed(1, &gzip(&message)),
            None => plain.clone(),
        };
        let body = Full::new(Bytes::from(sent)).map_err(BoxError::from).boxed();
        let answer = app.send_request(call("ModelInfer", encoding, body)).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200, "{what}");
        let answer = answer.into_body().collect().await.expect("an answer");
        let status = answer
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"));
        assert_eq!(status.expect("a status"), "0", "{what}");
        assert_eq!(&answer.to_bytes()[..], b"\0\0\0\0\x02ok", "{what}");
        assert_eq!(
            coded(&client, &stack).await,
            index + 1,
            "{what}: crosses as a code"
        );

        let (parts, body) = called.lock().expect("the list").pop().expect("a call");
        assert_eq!(parts.version, Version::HTTP_2, "{what}");
        assert_eq!(
            parts.uri.to_string(),
            format!("http://models.lan{SERVICE}/ModelInfer")
        );
        for (name, value) in [
            ("te", "trailers"),
            ("content-type", "application/grpc+proto"),
            ("x-own", "kept"),
        ] {
            assert_eq!(parts.headers[name], value, "{what}");
        }
        let shape = tensors(Preset::Oip, None, "imagenet");
        let (sent, got) = ((&parts.headers, &plain[..]), (&parts.headers, &body[..]));
        compare(&what, (&shape, inputs), sent, got);
    }

    // Without an edge the server is called directly, with what the app has sent.
    stack.edge.stop().expect("the edge ends");
    let sent = framed(0, &message("BYTES", &[2, 1], b"", &field(7, &elements())));
    let body = Full::new(Bytes::from(sent.clone())).map_err(BoxError::from);
    let answer = app.send_request(call("ModelInfer", None, body.boxed()));
    assert_eq!(answer.await.expect("an answer").status(), 200);
    let (parts, body) = called.lock().expect("the list").pop().expect("a call");
    assert!(parts.version == Version::HTTP_2 && body == sent);
}

#[tokio::test]
async fn a_stream_goes_both_ways_before_it_ends() {
    let (server, _called) = server().await;
    let stack = stack(server).await;
    let mut app = app(&stack).await;
    let (mut sender, channel): (Sender<Bytes, BoxError>, _) = Channel::new(1);
    let question = framed(0, &message("BYTES", &[1], b"", &field(7, &elements())));
    let request = call("ModelStreamInfer", None, channel.boxed());
    let answer = timeout(LONG, app.send_request(request)).await;
    let mut answer = answer.expect("in time").expect("an answer").into_body();
    for _ in 0..3 {
        sender
            .send_data(question.clone().into())
            .await
            .expect("a reader");
        let mut echoed = Vec::new();
        while echoed.len() < question.len() {
            let frame = timeout(LONG, answer.frame()).await.expect("in time");
            let frame = frame.expect("more of it").expect("a frame");
            echoed.extend(frame.into_data().expect("data"));
        }
        assert!(echoed == question);
    }
    drop(sender);
    let end = timeout(LONG, answer.frame()).await.expect("in time");
    assert!(end.is_none_or(|frame| frame.is_ok_and(|frame| frame.is_data())));
    let page = format!("http://{}/metrics", stack.device.address("admin"));
    let reason = Client::default()
        .metric(
            &page,
            "sidecod_device_not_coded_total",
            &["reason=\"stream\""],
        )
        .await;
    assert_eq!(reason.expect("metrics") as u64, 1);
}
