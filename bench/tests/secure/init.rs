//! First configurations.

use super::ALONE;
use super::programs::World;

#[tokio::test]
async fn from_nothing_to_a_coded_photo() {
    let _alone = ALONE.lock().await;
    let world = World::new();
    let bundle = sidecod_bench::stack::workspace().join("onnx/codecs/photo-v0");
    let (good, said) = world.run("proxy-edge", &["cert", "--name", "localhost"]);
    assert!(good, "{said}");
    let bundle = bundle.display().to_string();
    let server = world.server();
    let init = ["init", &server, "--bundle", &bundle];
    let (good, said) = world.run("proxy-edge", &init);
    assert!(good && said.contains("wrote proxy-edge.toml"), "{said}");
    let (good, said) = world.run("proxy-edge", &init);
    assert!(!good && said.contains("is there already"), "{said}");

    let text = std::fs::read_to_string(world.file("proxy-edge.toml")).unwrap();
    let certs = world.file("certs").display().to_string();
    let text = text
        .replace("[::]:7100", "127.0.0.1:0")
        .replace("127.0.0.1:7101", "127.0.0.1:0")
        .replace("\"certs/", &format!("\"{certs}/"));
    let edge = world.start("proxy-edge", "edge.toml", &text);
    edge.ready().await;
    let port = edge
        .program
        .address("data")
        .rsplit_once(':')
        .unwrap()
        .1
        .to_owned();
    let url = format!("https://localhost:{port}");
    let identity = format!("{certs}/device.pem");
    let init = ["init", &url, "--identity", &identity, "--direct", &server];
    let (good, said) = world.run("proxy-device", &init);
    assert!(good, "{said}");
    for part in [
        "codec photo-v0 ",
        "model servers: default",
        "wrote proxy-device.toml",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let (good, said) = world.run("proxy-device", &init);
    assert!(!good && said.contains("is there already"), "{said}");
    let (good, said) = world.run("proxy-device", &["--config", "x.toml", "init", &url]);
    assert!(!good && said.contains("edge.tls: say identity"), "{said}");

    let text = std::fs::read_to_string(world.file("proxy-device.toml")).unwrap();
    let cache = world.file("cache").display().to_string();
    let text = text
        .replace("127.0.0.1:7000", "127.0.0.1:0")
        .replace("127.0.0.1:7001", "127.0.0.1:0")
        .replace("# max_side = 640", "max_side = 256")
        .replace("[edge]", &format!("[codec]\ncache = {cache:?}\n[edge]"));
    let device = world.start("proxy-device", "device.toml", &text);
    device.ready().await;
    world.ask(&device).await;
    assert_eq!(device.outcome("code").await, 1.0, "{}", device.log());
}
