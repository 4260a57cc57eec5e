//! TLS between the sidecars, with the certificates of `proxy-edge cert` and with wrong ones.

use std::fs;
use std::time::{Duration, SystemTime};

use sidecod_edge::cert::Authority;

use super::ALONE;
use super::programs::{World, quoted};

/// What stands in `[codec]`: nothing is fetched.
pub fn local() -> String {
    let bundle = sidecod_bench::stack::workspace().join("onnx/codecs/photo-v0");
    format!("bundle = {}", quoted(&bundle))
}

pub fn server_tls(world: &World, name: &str, asks: bool) -> String {
    let file = |end: &str| quoted(&world.file("certs").join(format!("{name}.{end}")));
    let ca = quoted(&world.file("certs/ca.pem"));
    let client_ca = if asks {
        format!("\nclient_ca = {ca}")
    } else {
        String::new()
    };
    format!(
        "[tls]\ncertificate = {}\nkey = {}{client_ca}",
        file("pem"),
        file("key")
    )
}

pub fn client_tls(world: &World, file: &str) -> String {
    format!("[edge.tls]\nidentity = {}", quoted(&world.file(file)))
}

#[tokio::test]
async fn one_command_makes_certificates_that_both_sidecars_use() {
    let _alone = ALONE.lock().await;
    let world = World::new();
    let (good, said) = world.run("proxy-edge", &["cert", "--name", "localhost"]);
    assert!(good && said.contains("certs/device.pem"), "{said}");

    let tls = server_tls(&world, "edge", true);
    let edge = world.start(
        "proxy-edge",
        "edge.toml",
        &world.edge_config("0", "photo-v0", &tls),
    );
    edge.ready().await;
    let port = edge
        .program
        .address("data")
        .rsplit_once(':')
        .unwrap()
        .1
        .to_owned();
    let url = format!("https://localhost:{port}");
    let identity = client_tls(&world, "certs/device.pem");
    let device = world.start(
        "proxy-device",
        "device.toml",
        &world.device_config(&url, &local(), &identity),
    );
    device.ready().await;
    world.ask(&device).await;
    assert!(device.outcome("code").await >= 1.0, "{}", device.log());
    assert!(
        edge.metric("sidecod_edge_certificate_expiry_seconds", "")
            .await
            > 1e9
    );

    // Renewed while both run: the next connection uses the new certificate.
    let again = [
        "cert",
        "--renew",
        "--name",
        "localhost",
        "--device",
        "device",
    ];
    let (good, said) = world.run("proxy-edge", &again);
    assert!(good, "{said}");
    for sidecar in [&edge, &device] {
        sidecar.says("the configuration was read again").await;
    }
    world.ask(&device).await;
    assert!(device.outcome("code").await >= 2.0, "{}", device.log());
    for name in ["proxy-edge", "proxy-device"] {
        let file = if name == "proxy-edge" {
            "edge.toml"
        } else {
            "device.toml"
        };
        let (good, said) = world.run(name, &["--check", "--config", file]);
        assert!(good && said.contains("TLS 1.3"), "{said}");
    }
}

#[tokio::test]
async fn who_is_not_trusted_is_refused_and_the_request_goes_directly() {
    let _alone = ALONE.lock().await;
    let world = World::new();
    let (good, said) = world.run("proxy-edge", &["cert", "--name", "localhost"]);
    assert!(good, "{said}");
    let (good, said) = world.run(
        "proxy-edge",
        &["cert", "--folder", "other", "--name", "localhost"],
    );
    assert!(good, "{said}");
    let key = fs::read_to_string(world.file("certs/ca.key")).unwrap();
    let ca = fs::read_to_string(world.file("certs/ca.pem")).unwrap();
    let authority = Authority::of_key(&key).unwrap();
    let past = SystemTime::now() - Duration::from_hours(24);
    let late = authority.edge(&["localhost".to_owned()], past).unwrap();
    fs::write(world.file("certs/late.pem"), late.certificate).unwrap();
    fs::write(world.file("certs/late.key"), late.key).unwrap();
    let old = authority.device("old", past).unwrap();
    fs::write(
        world.file("old.pem"),
        [old.certificate, old.key, ca].concat(),
    )
    .unwrap();

    let edge = |name: &str, asks: bool| {
        let tls = server_tls(&world, name, asks);
        let config = world.edge_config("0", "photo-v0", &tls);
        world.start("proxy-edge", &format!("{name}-{asks}.toml"), &config)
    };
    let (good, late) = (edge("edge", true), edge("late", false));
    let ca = format!("[edge.tls]\nca = {}", quoted(&world.file("certs/ca.pem")));
    for (name, edge, host, tls, device_says, edge_says) in [
        (
            "expired edge",
            &late,
            "localhost",
            ca.clone(),
            "the edge's certificate has expired on ",
            "says that the certificate of this edge has expired",
        ),
        (
            "wrong name",
            &good,
            "127.0.0.1",
            client_tls(&world, "certs/device.pem"),
            "is for localhost, not for 127.0.0.1",
            "does not accept the certificate of this edge",
        ),
        (
            "unknown CA",
            &good,
            "localhost",
            client_tls(&world, "other/device.pem"),
            "is of no CA in ",
            "does not accept the certificate of this edge",
        ),
        (
            "no client certificate",
            &good,
            "localhost",
            ca,
            "asks for a client certificate: say edge.tls.identity",
            "it showed no certificate",
        ),
        (
            "expired device",
            &good,
            "localhost",
            client_tls(&world, "old.pem"),
            "this device's certificate has expired",
            "its certificate has expired on ",
        ),
    ] {
        let port = edge.program.address("data").rsplit_once(':').unwrap().1;
        let url = format!("https://{host}:{port}");
        let config = world.device_config(&url, &local(), &tls);
        let device = world.start("proxy-device", "device.toml", &config);
        world.ask(&device).await;
        assert!(
            device.outcome("fallback_direct").await >= 1.0,
            "{name}: {}",
            device.log()
        );
        device.says(device_says).await;
        edge.says(edge_says).await;
    }
    assert!(good.metric("sidecod_edge_tls_refused_total", "").await >= 4.0);
}
