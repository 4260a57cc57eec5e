//! Sounds between an app and a server that keeps what it gets.

use sidecod_wire::sound::Wav;

use super::*;

const ROUTES: &str = r#"route=[
    {name="speech", path="/speech", shape="openai"},
    {name="small", path="/small", sound="opus:16"},
    {name="tensors", path="/oip", shape="oip"},
]"#;

fn wav() -> Vec<u8> {
    std::fs::read(workspace().join("examples/speech/young-man.wav")).expect("a sound")
}

/// The same sound as floating-point numbers.
fn floats() -> Vec<u8> {
    let file = wav();
    let Wav { range, samples } = Wav::parse(&file).expect("a sound");
    let (numbers, _) = file[range].as_chunks();
    let float = |number: &[u8; 2]| f32::from(i16::from_le_bytes(*number)) / 32_768.0;
    let data: Vec<u8> = numbers
        .iter()
        .flat_map(|n| float(n).to_le_bytes())
        .collect();
    let (rate, bytes) = (samples.rate.to_le_bytes(), (samples.rate * 4).to_le_bytes());
    let format = [&[3, 0, 1, 0][..], &rate, &bytes, &[4, 0, 32, 0]].concat();
    let length = (data.len() as u32).to_le_bytes();
    [
        &b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0"[..],
        &format,
        b"data",
        &length,
        &data,
    ]
    .concat()
}

fn chat(photo: &[u8], sound: &[u8]) -> Vec<u8> {
    format!(
        r#"{{"messages":[{{"content":[{{"type":"input_audio","input_audio":{{"data":"{}","format":"wav"}}}},{{"image_url":{{"url":"data:image/jpeg;base64,{}"}}}}]}}],"n":1}}"#,
        base64(sound, false, false),
        base64(photo, false, false),
    )
    .into_bytes()
}

/// A form with a sound, of which it says the length.
fn form(sound: &[u8]) -> Vec<u8> {
    let head = format!(
        "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\nContent-Length: {}\r\n\r\n",
        sound.len()
    );
    [head.as_bytes(), sound, b"\r\n--b--\r\n"].concat()
}

#[tokio::test]
async fn the_server_gets_the_very_sound() {
    let (stack, asked) = start(ROUTES).await;
    let client = Client::default();
    let url = format!("http://{}", stack.device.address("reverse"));
    let (sound, photo) = (wav(), photo("goldfish.jpg"));
    let (length, tensor) = inference("1", "BYTES", &element(&sound));
    let json = || vec![("content-type", "application/json".to_owned())];
    let part = || {
        let value = "multipart/form-data; boundary=b";
        vec![("content-type", value.to_owned())]
    };
    let raw = || vec![("content-type", "audio/wav".to_owned())];
    let packed = [raw(), vec![("content-encoding", "gzip".to_owned())]].concat();
    for (index, (what, path, headers, sent, plain)) in [
        ("body", "/speech", raw(), sound.clone(), sound.clone()),
        ("floats", "/speech", raw(), floats(), floats()),
        ("gzip", "/speech", packed, gzip(&sound), sound.clone()),
        ("form", "/speech", part(), form(&sound), form(&sound)),
        (
            "chat",
            "/speech",
            json(),
            chat(b"", &sound),
            chat(b"", &sound),
        ),
        (
            "with a photo",
            "/speech",
            json(),
            chat(&photo, &sound),
            chat(&photo, &sound),
        ),
        (
            "tensor",
            "/oip",
            vec![(JSON_LENGTH, length)],
            tensor.clone(),
            tensor,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = Request::post(format!("{url}{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Bytes::from(sent)).expect("a request");
        let answer = client.send(request).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{what}");
        assert_eq!(coded(&client, &stack).await, index + 1, "{what}: a code");
        let (_, body) = asked.lock().expect("the list").pop().expect("a request");
        if what == "with a photo" {
            // The sound comes first, and the photo as the codec gives it.
            let behind = plain.iter().rposition(|&byte| byte == b',');
            let before = plain.len() - photo.len() * 4 / 3 - 100;
            assert_eq!(body[..before], plain[..before], "{what}");
            assert!(body.ends_with(&plain[behind.expect("a comma")..]), "{what}");
        } else {
            assert!(body == plain, "{what}: {} bytes", body.len());
        }
    }
    stack.device.stop().expect("the device ends");
    stack.edge.stop().expect("the edge ends");
}

#[tokio::test]
async fn a_route_may_have_sounds_cross_with_loss() {
    let (stack, asked) = start(ROUTES).await;
    let client = Client::default();
    let url = format!("http://{}/small", stack.device.address("reverse"));
    let page = format!("http://{}/metrics", stack.device.address("admin"));
    let link = "sidecod_device_link_bytes_total";
    let before = client.metric(&page, link, &["sent"]).await.expect("bytes");
    let sound = wav();
    let answer = client
        .post(&url, "audio/wav", Bytes::from(sound.clone()))
        .await;
    assert_eq!(answer.expect("an answer").status(), 200);
    let after = client.metric(&page, link, &["sent"]).await.expect("bytes");
    assert!(
        after - before < sound.len() as f64 / 10.0,
        "{before} {after}"
    );
    let (headers, body) = asked.lock().expect("the list").pop().expect("a request");
    assert_eq!(headers["content-type"], "audio/wav");
    assert_eq!(Wav::parse(&body), Wav::parse(&sound));
    assert_eq!((body.len(), &body[..44]), (sound.len(), &sound[..44]));

    // What is compressed already crosses as it is.
    let flac = Bytes::from_static(b"fLaC\0\0\0\x22not more than a beginning");
    let answer = client.post(&url, "audio/flac", flac.clone()).await;
    assert_eq!(answer.expect("an answer").status(), 200);
    let reason = &["route=\"small\"", "reason=\"sound\""];
    let counted = client.metric(&page, "sidecod_device_not_coded_total", reason);
    assert!(counted.await.expect("a count") > 0.0);
    let (_, body) = asked.lock().expect("the list").pop().expect("a request");
    assert_eq!(body, flac);
    stack.device.stop().expect("the device ends");
    stack.edge.stop().expect("the edge ends");
}
