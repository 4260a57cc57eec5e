//! Three hosts, as network namespaces: an app with its device sidecar, an edge, a model server. An
//! unmodified client that knows nothing of Sidecod is intercepted by the system's own rules.
//!
//! Needs root, iproute2, nftables, iptables, util-linux, curl and the system's python3; without them it fails.

#![allow(clippy::expect_used)] // a test fails by panicking

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sidecod_bench::netns::Namespace;
use sidecod_bench::stack::{Program, workspace};

/// The app's user; the sidecar runs as root.
const APP: u32 = 65_534;
const MODEL_V4: &str = "10.77.2.2";
const MODEL_V6: &str = "fd77:2::2";
const MODEL_PORT: u16 = 8500;
/// A server of another protocol on the model's host, listed as a destination by mistake.
const ECHO_PORT: u16 = 8600;
/// One that speaks first.
const GREETING_PORT: u16 = 8700;
/// One that is redirected, but no destination of the sidecar.
const UNLISTED_PORT: u16 = 8800;
/// Redirected as well, and nobody listens there.
const CLOSED_PORT: u16 = 8900;
const PORTS: &str = "8500,8600,8700,8800,8900";

/// The system's own, which every user may run.
const PYTHON: &str = "/usr/bin/python3";

/// Serves one protocol in Python: `echo` after the client has finished, or `greet` and echo.
const SERVER: &str = r#"
import socket, sys, threading
port, greeting = int(sys.argv[1]), sys.argv[2].encode()
listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
def serve(connection):
    with connection:
        connection.sendall(greeting)
        got = b""
        while piece := connection.recv(65536):
            got += piece
        connection.sendall(got[::-1])
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// Connects, waits for the greeting, then sends bytes, ends its side, and prints the rest.
const CLIENT: &str = r#"
import socket, sys
host, port, greeting = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
with socket.create_connection((host, port), timeout=60) as connection:
    got = b""
    while len(got) < len(greeting):
        got += connection.recv(len(greeting) - len(got))
    assert got == greeting, got
    connection.sendall(b"\x00\x01no HTTP at all")
    connection.shutdown(socket.SHUT_WR)
    while piece := connection.recv(65536):
        got += piece
print(got[len(greeting):][::-1])
"#;

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The three hosts and what runs there. Programs end before their namespaces go.
struct Hosts {
    device: Program,
    _others: Vec<Program>,
    _servers: Vec<Running>,
    app: Namespace,
    edge: Namespace,
    model: Namespace,
}

fn arguments(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn python_server(model: &Namespace, port: u16, greeting: &str) -> Running {
    let mut child = model
        .command(PYTHON)
        .args(["-c", SERVER, &port.to_string(), greeting])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the system's python3");
    let mut line = String::new();
    let output = child.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line, "listening\n");
    Running(child)
}

impl Hosts {
    fn start() -> Self {
        let [app, edge, model] = ["app", "edge", "model"]
            .map(|role| Namespace::new(role).expect("network namespaces: run as root"));
        let near = ["10.77.1.1/24", "fd77:1::1/64"];
        Namespace::link(
            (&app, "edge", near),
            (&edge, "app", ["10.77.1.2/24", "fd77:1::2/64"]),
        )
        .expect("app - edge");
        let far = ["10.77.2.2/24", "fd77:2::2/64"];
        Namespace::link(
            (&edge, "model", ["10.77.2.1/24", "fd77:2::1/64"]),
            (&model, "edge", far),
        )
        .expect("edge - model");
        edge.forward().expect("a router");
        app.default_routes("10.77.1.2", "fd77:1::2")
            .expect("routes");
        model
            .default_routes("10.77.2.1", "fd77:2::1")
            .expect("routes");

        let servers = vec![
            python_server(&model, ECHO_PORT, ""),
            python_server(&model, GREETING_PORT, "220 greetings\r\n"),
            python_server(&model, UNLISTED_PORT, ""),
        ];
        let model_address = format!("[::]:{MODEL_PORT}");
        let listen = arguments(&["--listen", &model_address]);
        let model_server = Program::start_in(&model, "model-server", &listen).expect("a server");
        let upstream =
            format!("upstream=[{{name='default', url='http://{MODEL_V4}:{MODEL_PORT}'}}]");
        let config = workspace().join("examples/demo");
        let edge_config = config.join("proxy-edge.toml").display().to_string();
        let edge_sidecar = Program::start_in(
            &edge,
            "proxy-edge",
            &arguments(&[
                "--config",
                &edge_config,
                "--set",
                "listen='10.77.1.2:7100'",
                "--set",
                &upstream,
            ]),
        )
        .expect("an edge");
        let device_config = config.join("proxy-device.toml").display().to_string();
        let hosts: Vec<String> = [MODEL_PORT, ECHO_PORT, GREETING_PORT]
            .iter()
            .flat_map(|port| {
                [
                    format!("'{MODEL_V4}:{port}'"),
                    format!("'[{MODEL_V6}]:{port}'"),
                ]
            })
            .collect();
        let destination = format!("destination=[{{hosts=[{}]}}]", hosts.join(","));
        let device = Program::start_in(
            &app,
            "proxy-device",
            &arguments(&[
                "--config",
                &device_config,
                "--set",
                "edge.url='http://10.77.1.2:7100'",
                "--set",
                &destination,
                "--set",
                "listen.reverse=[]",
                "--set",
                "listen.transparent=['127.0.0.1:7002','[::1]:7002']",
                "--set",
                "listen.forward=['127.0.0.1:7003']",
            ]),
        )
        .expect("a device");
        let hosts = Self {
            device,
            _others: vec![edge_sidecar, model_server],
            _servers: servers,
            app,
            edge,
            model,
        };
        wait_for(&hosts.edge, "http://127.0.0.1:7101/ready");
        wait_for(&hosts.app, "http://127.0.0.1:7001/ready");
        wait_for(
            &hosts.model,
            &format!("http://127.0.0.1:{MODEL_PORT}/health"),
        );
        hosts
    }

    /// Runs `proxy-device redirect` on the app's host.
    fn redirect(&self, words: &[&str]) -> Output {
        let program = sidecod_bench::stack::program("proxy-device").expect("proxy-device");
        let mut command = self.app.command(program);
        command.arg("redirect").args(words);
        run(&mut command, b"")
    }

    /// Posts the photo to the model server's own address, as the app's user does it.
    fn post(&self, host: &str) -> String {
        let url = format!("http://{host}:{MODEL_PORT}/predictions/efficientnet-lite0");
        let mut curl = self.app.command_as(APP, "curl");
        curl.args(["-sS", "-g", "--max-time", "120", "--data-binary", "@-"]);
        curl.args(["-H", "content-type: image/jpeg", &url]);
        let photo = std::fs::read(workspace().join("examples/photos/polar-bear.jpg"));
        text(run(&mut curl, &photo.expect("the photo")))
    }

    /// Has the app speak another protocol.
    fn speak(&self, host: &str, port: u16, greeting: &str) -> String {
        let mut python = self.app.command_as(APP, PYTHON);
        python.args(["-c", CLIENT, host, &port.to_string(), greeting]);
        text(run(&mut python, b""))
    }

    /// The sum of the device's series of a metric whose labels contain `label`.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let mut curl = self.app.command("curl");
        let page = text(run(
            curl.args(["-fsS", "http://127.0.0.1:7001/metrics"]),
            b"",
        ));
        page.lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    fn coded(&self) -> f64 {
        self.metric("sidecod_device_requests_total", "outcome=\"code\"")
    }

    fn tunnels(&self, reason: &str) -> f64 {
        self.metric(
            "sidecod_device_tunnels_total",
            &format!("reason=\"{reason}\""),
        )
    }
}

fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that does not read to the end says why.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("its output")
}

fn text(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn wait_for(namespace: &Namespace, url: &str) {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let answer = run(
            namespace.command("curl").args(["-fsS", "-m", "5", url]),
            b"",
        );
        if answer.status.success() {
            return;
        }
        let error = String::from_utf8_lossy(&answer.stderr);
        assert!(Instant::now() < deadline, "{url}: {error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn open_files(program: &Program) -> usize {
    let folder = format!("/proc/{}/fd", program.id());
    std::fs::read_dir(folder).expect("the process").count()
}

#[test]
fn an_unmodified_app_is_intercepted() {
    let hosts = Hosts::start();
    let app = APP.to_string();
    let rules = ["--uid", &app, "--ports", PORTS];

    // Nothing is intercepted before the rules are there.
    assert!(hosts.post(MODEL_V4).contains("polar bear"));
    assert!(hosts.coded() < 0.5);
    let printed = text(hosts.redirect(&rules));
    assert!(hosts.post(MODEL_V4).contains("polar bear"));
    assert!(hosts.coded() < 0.5, "printing installs nothing");

    let mut coded = 0.0;
    for tool in ["nft", "iptables"] {
        for _ in 0..2 {
            let words = [&rules[..], &["--tool", tool, "--apply"]].concat();
            let applied = text(hosts.redirect(&words));
            assert!(tool != "nft" || applied == printed);
        }
        for host in [MODEL_V4, "[fd77:2::2]"] {
            let sent = hosts.metric("sidecod_device_link_bytes_total", "direction=\"sent\"");
            assert!(hosts.post(host).contains("polar bear"), "{tool} {host}");
            coded += 1.0;
            let now = hosts.coded();
            assert!(
                (now - coded).abs() < 0.5,
                "{tool} {host}: {now} coded, not {coded}"
            );
            let after = hosts.metric("sidecod_device_link_bytes_total", "direction=\"sent\"");
            // The photo has 194563 bytes.
            let bytes = after - sent;
            assert!(
                (100.0..80_000.0).contains(&bytes),
                "{bytes} bytes for a photo"
            );
        }
    }

    let said = "b'\\x00\\x01no HTTP at all'\n";
    for host in [MODEL_V4, MODEL_V6] {
        for (port, greeting, reason) in [
            (ECHO_PORT, "", "protocol"),
            (GREETING_PORT, "220 greetings\r\n", "server_first"),
            (UNLISTED_PORT, "", "elsewhere"),
        ] {
            let before = hosts.tunnels(reason);
            assert_eq!(hosts.speak(host, port, greeting), said, "{host} {reason}");
            assert!(
                (hosts.tunnels(reason) - before - 1.0).abs() < 0.5,
                "{host} {reason}"
            );
        }
    }

    // A server that is not there is a reset: not an answer, and not a silence.
    let mut closed = hosts.app.command_as(APP, "curl");
    let url = format!("http://{MODEL_V4}:{CLOSED_PORT}/");
    let refused = run(closed.args(["-sS", "-m", "30", &url]), b"");
    // Depending on when the reset comes: not connected, or not received.
    assert!(
        [Some(7), Some(56)].contains(&refused.status.code()),
        "{refused:?}"
    );

    a_loop_is_refused(&hosts);
    removed_rules_are_gone(&hosts, &rules);
    hosts.device.stop().expect("the device drains");
}

/// The rules are wrong on purpose: they redirect what the sidecar itself sends.
fn a_loop_is_refused(hosts: &Hosts) {
    let wrong = [
        "--uid",
        "0",
        "--own-uid",
        "12345",
        "--ports",
        PORTS,
        "--apply",
    ];
    text(hosts.redirect(&wrong));
    let files = open_files(&hosts.device);
    for (port, host) in [
        (UNLISTED_PORT, MODEL_V4),
        (UNLISTED_PORT, "[fd77:2::2]"),
        (MODEL_PORT, MODEL_V4),
    ] {
        let before = hosts.metric("sidecod_device_loops_total", "");
        let url = format!("http://{host}:{port}/x");
        let proxy = ["-x", "http://127.0.0.1:7003"];
        // Through the forward listener, so that the sidecar is the one that connects.
        let proxy: &[&str] = if port == UNLISTED_PORT { &proxy } else { &[] };
        let mut curl = hosts.app.command("curl");
        curl.args(["-sS", "-g", "-m", "30", "-w", " %{http_code}"])
            .args(proxy)
            .arg(&url);
        let answer = text(run(&mut curl, b""));
        if port == UNLISTED_PORT {
            assert!(
                answer.ends_with(" 508") && answer.contains("urn:sidecod:loop"),
                "{answer}"
            );
            assert!(
                hosts.metric("sidecod_device_loops_total", "") > before,
                "{url}"
            );
        } else {
            // A listed destination is reached through the edge, which is not redirected.
            assert!(answer.ends_with(" 404"), "{answer}");
        }
    }
    // A connection straight to the listener, which no rule has redirected.
    let mut curl = hosts.app.command("curl");
    let answer = text(run(
        curl.args(["-sS", "-m", "30", "http://127.0.0.1:7002/x"]),
        b"",
    ));
    assert!(answer.contains("urn:sidecod:loop"), "{answer}");
    assert!(
        open_files(&hosts.device) < files + 20,
        "file descriptors pile up"
    );
}

fn removed_rules_are_gone(hosts: &Hosts, rules: &[&str]) {
    let mut add = hosts.app.command("nft");
    text(run(add.args(["add", "table", "ip", "other"]), b""));
    for tool in ["nft", "iptables"] {
        text(hosts.redirect(&[rules, &["--tool", tool, "--apply"]].concat()));
        for _ in 0..2 {
            text(hosts.redirect(&["--remove"]));
            let mut left = String::new();
            for list in [
                "nft list ruleset",
                "iptables -t nat -S",
                "ip6tables -t nat -S",
            ] {
                let mut command = hosts.app.command("sh");
                left += &text(run(command.args(["-c", list]), b""));
            }
            assert!(!left.contains("sidecod"), "{left}");
            assert!(left.contains("table ip other"), "{left}");
        }
    }
    let before = hosts.coded();
    assert!(hosts.post(MODEL_V4).contains("polar bear"));
    assert!((hosts.coded() - before).abs() < 0.5);
    // Another user may look, but not install.
    let program = sidecod_bench::stack::program("proxy-device").expect("proxy-device");
    let mut command = hosts.app.command_as(APP, &program.display().to_string());
    command.args(["redirect", "--uid", "5", "--ports", "80", "--apply"]);
    let refused = run(&mut command, b"");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && error.contains("only root"),
        "{error}"
    );
}
