//! What a device and a model server see of the built program.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Client, Edge, Upstream, bundle, coded, config, frame, framed, program, slot};
use http::Request;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use sidecod_sidecar::body;
use sidecod_wire::frame::Frame;
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{self, Color, MediaType};
use sidecod_wire::slot::Skeleton;

/// Waits for something that another process is about to do.
async fn soon(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} has not happened");
}

#[tokio::test]
async fn a_frame_becomes_the_request_that_the_app_sent() {
    let (upstream, bundle) = (Upstream::start().await, bundle());
    let edge = Edge::start(upstream.address, "", "").await;
    let client = edge.client().await;
    let mut request = framed(
        "/record/a%20b?top=5&x",
        frame(&bundle, MediaType::Jpeg, 128, 128).encode(),
    );
    for (name, value) in [
        ("x-app", "kept"),
        ("authorization", "Bearer app"),
        ("sidecod-upstream", "default"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = client.send(request).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"the answer"[..]));
    assert_eq!(answer.headers["x-answer"], "yes");
    assert_eq!(answer.headers["content-length"], "10");
    for gone in ["sidecod-error", "x-hop", "connection"] {
        assert!(!answer.headers.contains_key(gone), "{gone}");
    }
    let timing: Vec<_> = answer.headers.get_all("server-timing").iter().collect();
    assert_eq!(timing[0], "model;dur=5");
    let own = timing[1].to_str().unwrap();
    let names: Vec<_> = own
        .split(", ")
        .map(|step| step.split(';').next().unwrap())
        .collect();
    assert_eq!(names, ["queue", "decode", "render", "upstream"]);

    let asked = upstream.last();
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.uri, "/record/a%20b?top=5&x");
    for (name, value) in [
        ("host", "app.example:8080"),
        ("content-type", "image/jpeg"),
        ("content-length", &asked.body.len().to_string()),
        ("x-app", "kept"),
        ("authorization", "Bearer app"),
        ("cookie", "a=1; b=2"),
    ] {
        assert_eq!(asked.headers[name], value);
    }
    assert!(
        asked
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("sidecod-"))
    );
    assert_eq!(MediaType::sniff(&asked.body), Some(MediaType::Jpeg));

    let (_, metrics) = edge.admin("/metrics").await;
    for line in [
        "sidecod_edge_requests_total{upstream=\"default\",outcome=\"code\"} 1",
        "sidecod_edge_step_seconds_count{step=\"decode\"} 1",
        "sidecod_edge_step_seconds_count{step=\"render\"} 1",
        "sidecod_edge_decode_batch_size_count 1",
        "sidecod_edge_decode_queue_depth 0",
        "sidecod_edge_in_flight 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert_eq!(edge.stop(), Some(0));
}

#[tokio::test]
async fn pictures_of_any_size_type_and_colour() {
    let (upstream, bundle) = (Upstream::start().await, bundle());
    let edge = Edge::start(upstream.address, "", "").await;
    let client = edge.client().await;
    let sizes = [
        (1, 1),
        (37, 1),
        (1, 211),
        (223, 225),
        (640, 481),
        (2000, 1500),
    ];
    for (index, (width, height)) in sizes.into_iter().enumerate() {
        let media = [MediaType::Jpeg, MediaType::Png, MediaType::WebP][index % 3];
        let mut frame = frame(&bundle, media, width, height);
        coded(&mut frame.slots[0]).orientation = 1 + index as u8;
        if media == MediaType::Png {
            coded(&mut frame.slots[0]).color = Color::Gray;
        }
        let answer = client.frame("/record", &frame).await;
        assert_eq!(answer.status, 200, "{width}x{height}: {answer:?}");
        let asked = upstream.last();
        assert_eq!(asked.headers["content-type"], media.mime());
        assert_eq!(MediaType::sniff(&asked.body), Some(media));
        let picture = media::decode(&asked.body, &Limits::default()).unwrap();
        let slot = coded(&mut frame.slots[0]);
        assert_eq!((picture.width, picture.height), (width, height));
        assert_eq!(picture.orientation, slot.orientation);
        assert_eq!(picture.color, slot.color);
    }
}

#[tokio::test]
async fn a_picture_that_was_reduced_comes_back_at_its_size() {
    let (upstream, bundle) = (Upstream::start().await, bundle());
    let edge = Edge::start(upstream.address, "", "").await;
    let mut frame = frame(&bundle, MediaType::Jpeg, 200, 150);
    let slot = coded(&mut frame.slots[0]);
    (slot.width, slot.height, slot.max_side) = (640, 480, 200);
    let answer = edge.client().await.frame("/record", &frame).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let picture = media::decode(&upstream.last().body, &Limits::default()).unwrap();
    assert_eq!((picture.width, picture.height), (640, 480));
}

#[tokio::test]
async fn the_rest_of_a_form_survives_byte_for_byte() {
    let (upstream, bundle) = (Upstream::start().await, bundle());
    let edge = Edge::start(upstream.address, "", "").await;
    let client = edge.client().await;
    let start = b"--b\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n".to_vec();
    let middle = b"\r\n--b\r\nContent-Disposition:form-data;name=b\r\n\r\n";
    let end = b"\r\n--b--\r\nepilogue";
    let skeleton = Skeleton {
        bytes: [&start[..], middle, end].concat(),
        offsets: vec![start.len(), start.len() + middle.len()],
        ..Skeleton::default()
    };
    let frame = Frame {
        bundle: bundle.digest.short(),
        quality: 0,
        content_type: Some("multipart/form-data; boundary=b".to_owned()),
        slots: vec![
            slot(&bundle, MediaType::Png, 70, 50),
            slot(&bundle, MediaType::Jpeg, 31, 90),
        ],
        skeleton,
    };
    assert_eq!(client.frame("/record", &frame).await.status, 200);
    let asked = upstream.last();
    assert_eq!(
        asked.headers["content-type"],
        "multipart/form-data; boundary=b"
    );
    let (body, rest) = (&asked.body, middle.len());
    let at = body
        .windows(rest)
        .position(|window| window == middle)
        .unwrap();
    assert!(body.starts_with(&start) && body.ends_with(end));
    for (file, size) in [
        (&body[start.len()..at], (70, 50)),
        (&body[at + rest..body.len() - end.len()], (31, 90)),
    ] {
        let picture = media::decode(file, &Limits::default()).unwrap();
        assert_eq!((picture.width, picture.height), size);
    }

    // A request that had no content-type has none again.
    let frame = Frame {
        content_type: None,
        slots: Vec::new(),
        ..frame
    };
    assert_eq!(client.frame("/record", &frame).await.status, 200);
    let asked = upstream.last();
    assert!(!asked.headers.contains_key("content-type"));
    assert_eq!(asked.body, frame.skeleton.bytes);
}

#[tokio::test]
async fn what_is_no_frame_is_streamed_both_ways() {
    let upstream = Upstream::start().await;
    let edge = Edge::start(upstream.address, "", "").await;
    let client = edge.client().await;
    let (mut sender, channel) = Channel::<Bytes, body::BoxError>::new(1);
    let request = Request::post("http://app/echo")
        .body(body::streamed(channel))
        .unwrap();
    let mut answer = client.begin(request).await.unwrap().into_body();
    // Each piece comes back before the next is sent.
    for piece in ["one", "two", "three"] {
        sender.send_data(piece.into()).await.unwrap();
        let back = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(back, piece);
    }
    drop(sender);
    let rest = answer.collect().await.unwrap();
    assert_eq!(rest.to_bytes(), "");

    let get = |path: &str| {
        Request::get(format!("http://app{path}"))
            .body(body::empty())
            .unwrap()
    };
    let mut request = get("/trailers");
    request
        .headers_mut()
        .insert("te", "trailers".parse().unwrap());
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.body, "first second");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "7");
    let answer = client.send(get("/redirect")).await.unwrap();
    assert_eq!((answer.status, upstream.count()), (302, 0));
    assert_eq!(answer.headers["location"], "/record");
    client.send(get("/record?q")).await.unwrap();
    let asked = upstream.last();
    assert_eq!(
        (asked.method.as_str(), asked.uri.to_string().as_str()),
        ("GET", "/record?q")
    );
    assert!(!asked.headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn a_device_that_goes_away_ends_the_call() {
    let upstream = Upstream::start().await;
    let edge = Edge::start(upstream.address, "", "").await;
    let client = edge.client().await;
    let call = tokio::spawn(async move {
        let request = Request::get("http://app/never")
            .body(body::empty())
            .unwrap();
        client.send(request).await.map(|answer| answer.status)
    });
    let metric = "sidecod_edge_in_flight 1";
    soon("the call", async || {
        edge.admin("/metrics").await.1.contains(metric)
    })
    .await;
    call.abort();
    soon("its end", async || upstream.abandoned() == 1).await;
}

async fn errors(client: &Client, cases: Vec<(&str, Request<sidecod_sidecar::Body>, u16)>) {
    for (kind, request, status) in cases {
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.error(), (status, kind), "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
}

#[tokio::test]
async fn every_kind_of_error_is_told() {
    let (upstream, bundle) = (Upstream::start().await, bundle());
    let gone = TcpPort::closed().await;
    let edge = Edge::start(
        upstream.address,
        "token = \"open-sesame\"\nmax_body = 20000\nbody_timeout_ms = 200\n[limits]\nmax_side = 5000",
        &format!("timeout_ms = 100\n[[upstream]]\nname = \"gone\"\nurl = \"http://{gone}\""),
    )
    .await;
    let client = edge.client().await;
    let good = frame(&bundle, MediaType::Jpeg, 8, 8);
    let with = |path: &str, body: Vec<u8>, headers: &[(&'static str, &str)]| {
        let mut request = framed(path, body);
        request
            .headers_mut()
            .insert("sidecod-token", "open-sesame".parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    };
    let changed = |change: &dyn Fn(&mut Frame)| {
        let mut frame = good.clone();
        change(&mut frame);
        with("/record", frame.encode(), &[])
    };
    let mut damaged = good.encode();
    damaged[12] ^= 1;
    let (_unsent, stalled) = Channel::<Bytes, body::BoxError>::new(1);
    let mut stall = with("/record", Vec::new(), &[]);
    stall.headers_mut().remove("content-length");
    *stall.body_mut() = body::streamed(stalled);
    let cases = vec![
        ("unauthorized", framed("/record", good.encode()), 401),
        (
            "unauthorized",
            with(
                "/record",
                good.encode(),
                &[("sidecod-token", "open-sesamf")],
            ),
            401,
        ),
        (
            "unknown-upstream",
            with("/record", good.encode(), &[("sidecod-upstream", "other")]),
            403,
        ),
        (
            "unknown-bundle",
            changed(&|frame| frame.bundle[0] ^= 1),
            409,
        ),
        ("bad-frame", changed(&|frame| frame.quality = 200), 400),
        (
            "bad-frame",
            changed(&|frame| frame.content_type = Some("a\nb".to_owned())),
            400,
        ),
        ("bad-frame", with("/record", damaged, &[]), 400),
        ("bad-frame", with("/record", Vec::new(), &[]), 400),
        ("too-large", with("/record", vec![0; 20_001], &[]), 413),
        (
            "too-large",
            changed(&|frame| coded(&mut frame.slots[0]).width = 5001),
            413,
        ),
        ("body-timeout", stall, 408),
        ("upstream-timeout", with("/never", good.encode(), &[]), 504),
        (
            "upstream-unreachable",
            with("/record", good.encode(), &[("sidecod-upstream", "gone")]),
            502,
        ),
    ];
    errors(&client, cases).await;
    assert_eq!(upstream.count(), 0);
    let answer = client
        .send(with("/record", good.encode(), &[]))
        .await
        .unwrap();
    assert_eq!(answer.error(), (200, ""));
}

/// An address that nothing listens on.
struct TcpPort;

impl TcpPort {
    async fn closed() -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }
}

#[tokio::test]
async fn a_picture_that_its_type_cannot_hold_is_an_error_of_decoding() {
    let (upstream, bundle) = (Upstream::start().await, bundle());
    let edge = Edge::start(upstream.address, "[limits]\nmax_side = 20000", "").await;
    // WebP ends at 16,383 pixels a side.
    let frame = frame(&bundle, MediaType::WebP, 16_400, 1);
    let answer = edge.client().await.frame("/record", &frame).await;
    assert_eq!(answer.error(), (500, "decode-failed"));
}

#[tokio::test]
async fn full_queues_refuse_and_what_was_admitted_is_answered() {
    let (upstream, bundle) = (Upstream::start().await, bundle());
    let edge = Edge::start(upstream.address, "decode_queue = 1", "").await;
    let client = edge.client().await;
    let frame = frame(&bundle, MediaType::Jpeg, 500, 500);
    let answers = (0..12).map(|_| {
        let (client, frame) = (client.clone(), frame.clone());
        tokio::spawn(async move { client.frame("/record", &frame).await })
    });
    let mut outcomes = Vec::new();
    for answer in answers.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        outcomes.push((answer.status, answer.error().1.to_owned()));
    }
    outcomes.sort();
    let good = outcomes.iter().filter(|outcome| outcome.0 == 200).count();
    assert!((1..12).contains(&good), "{outcomes:?}");
    assert!(
        outcomes[good..]
            .iter()
            .all(|outcome| *outcome == (503, "overloaded".to_owned()))
    );
    assert_eq!(client.frame("/record", &frame).await.status, 200);
}

#[tokio::test]
async fn more_pixels_than_may_be_in_hand_are_too_large() {
    let (upstream, bundle) = (Upstream::start().await, bundle());
    let more = "max_pixels_in_hand = 100000\n[limits]\nmax_pixels = 100000";
    let edge = Edge::start(upstream.address, more, "").await;
    let mut frame = frame(&bundle, MediaType::Jpeg, 250, 250);
    frame.slots.push(frame.slots[0].clone());
    frame.skeleton.offsets.push(0);
    let answer = edge.client().await.frame("/record", &frame).await;
    assert_eq!(answer.error(), (413, "too-large"));
}

#[tokio::test]
async fn requests_before_it_is_ready_are_told_so() {
    let upstream = Upstream::start().await;
    let edge = Edge::spawn(&config(upstream.address, "", ""));
    let client = edge.client().await;
    let get = || {
        Request::get("http://app/record")
            .body(body::empty())
            .unwrap()
    };
    let mut refused = 0;
    soon("readiness", async || {
        let answer = client.send(get()).await.unwrap();
        if answer.status == 200 {
            return true;
        }
        assert_eq!(answer.error(), (503, "not-ready"));
        refused += 1;
        false
    })
    .await;
    assert!(refused > 0);
    assert_eq!(edge.admin("/ready").await.0, 200);
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    let upstream = Upstream::start().await;
    let edge = Edge::start(upstream.address, "", "").await;
    let client = edge.client().await;
    let (mut sender, channel) = Channel::<Bytes, body::BoxError>::new(1);
    let request = Request::post("http://app/echo")
        .body(body::streamed(channel))
        .unwrap();
    let mut answer = client.begin(request).await.unwrap().into_body();
    let data = edge.data;
    let stopped = tokio::task::spawn_blocking(|| edge.stop());
    soon("the end of accepting", async || {
        tokio::net::TcpStream::connect(data).await.is_err()
    })
    .await;
    sender.send_data("late".into()).await.unwrap();
    drop(sender);
    let back = answer.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(back, "late");
    let rest = answer.collect().await.unwrap();
    assert_eq!(rest.to_bytes(), "");
    assert_eq!(stopped.await.unwrap(), Some(0));
}

#[test]
fn check_says_what_it_found_and_a_bad_configuration_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, config(([127, 0, 0, 1], 1).into(), "", "")).unwrap();
    let run = |sets: &[&str]| {
        let mut program = program();
        program.arg("--config").arg(&file).arg("--check");
        for set in sets {
            program.args(["--set", set]);
        }
        let output = program.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, said, _) = run(&[]);
    assert_eq!(code, Some(0));
    assert!(
        said.contains(&format!("bundle photo-v0 {}", bundle().manifest.version)),
        "{said}"
    );
    assert!(said.contains(&bundle().digest.to_string()), "{said}");
    for (set, says) in [
        ("plaintext=false", "plaintext"),
        ("decode_thread=2", "decode_thread"),
        ("bundles=[\"/nowhere\"]", "/nowhere/manifest.json"),
    ] {
        let (code, _, said) = run(&[set]);
        assert_eq!(code, Some(2), "{set}");
        assert!(said.contains(says), "{said}");
    }
}
