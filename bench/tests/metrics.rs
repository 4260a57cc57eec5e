//! docs/metrics.md against the sources, against what the built programs expose, and the dashboard
//! against docs/metrics.md.

#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use http::StatusCode;
use sidecod_bench::client::Client;
use sidecod_bench::stack::{Stack, workspace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATH: &str = "/predictions/efficientnet-lite0";

/// Type and labels of a metric.
#[derive(Debug, Clone, PartialEq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

type Metrics = BTreeMap<String, Metric>;

/// The tables of docs/metrics.md.
fn documented() -> Metrics {
    let file = workspace().join("docs/metrics.md");
    let text = std::fs::read_to_string(file).expect("docs/metrics.md");
    let quoted = |cell: &str| -> BTreeSet<String> {
        let names = cell.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    let rows = text.lines().filter(|line| line.starts_with("| `sidecod_"));
    let metrics = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, what, ..] = cells[..] else {
            panic!("{row}")
        };
        assert!(!what.is_empty(), "{row}");
        let kind = kind.to_owned();
        let labels = quoted(labels);
        (name.trim_matches('`').to_owned(), Metric { kind, labels })
    });
    metrics.collect()
}

/// Names and types in the sources of the sidecars.
fn in_sources() -> BTreeSet<(String, String)> {
    fn scan(folder: &Path, found: &mut BTreeSet<(String, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                scan(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                for kind in ["counter", "gauge", "histogram"] {
                    let begin = format!("{kind}!(");
                    let uses = text.split(&begin[..]).skip(1);
                    let names = uses.filter_map(|rest| {
                        let (name, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
                        Some((name.to_owned(), kind.to_owned()))
                    });
                    found.extend(names);
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    for package in ["sidecar", "proxy-device", "proxy-edge"] {
        scan(&workspace().join(package).join("src"), &mut found);
    }
    found
}

/// What a page of metrics exposes; the labels that Prometheus' own types add do not count.
fn exposed(page: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in page.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let (kind, labels) = (kind.to_owned(), BTreeSet::new());
            metrics.insert(name.to_owned(), Metric { kind, labels });
        } else if let Some((series, labels)) = line.split_once('{') {
            let family = family(series, &metrics).to_owned();
            let labels = labels.split('}').next().unwrap_or_default();
            let names = labels
                .split("\",")
                .filter_map(|label| label.split('=').next());
            let names = names.filter(|name| *name != "le").map(str::to_owned);
            let metric = metrics.get_mut(&family).expect("a TYPE before its series");
            metric.labels.extend(names);
        }
    }
    metrics
}

/// The metric that a series belongs to: those of a histogram have longer names.
fn family<'s>(series: &'s str, metrics: &Metrics) -> &'s str {
    let ends = ["_bucket", "_sum", "_count"];
    let mut starts = ends.iter().filter_map(|end| series.strip_suffix(end));
    starts
        .find(|start| metrics.get(*start).is_some_and(|m| m.kind == "histogram"))
        .unwrap_or(series)
}

#[test]
fn every_metric_is_documented_and_named_alike() {
    let documented = documented();
    let of_docs: BTreeSet<_> = documented
        .iter()
        .map(|(name, metric)| (name.clone(), metric.kind.clone()))
        .collect();
    assert_eq!(in_sources(), of_docs, "sources, docs/metrics.md");
    for (name, metric) in &documented {
        assert_eq!(name.ends_with("_total"), metric.kind == "counter", "{name}");
        if metric.kind == "histogram" {
            let unit = ["_seconds", "_bytes", "_batch_size"];
            assert!(unit.iter().any(|unit| name.ends_with(unit)), "{name}");
        }
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let file = workspace().join("docker/grafana/sidecod.json");
    let text = std::fs::read_to_string(file).expect("the dashboard");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    collect(&json, &mut queries);
    assert!(queries.len() >= 10, "{queries:?}");
    let documented = documented();
    for query in queries {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = query.split(|c| !is_word(c));
        let mut labels = BTreeSet::from(["le", "job", "instance"].map(str::to_owned));
        let mut metrics = 0;
        for series in words.filter(|word| word.starts_with("sidecod_")) {
            let metric = documented.get(family(series, &documented));
            let metric = metric.unwrap_or_else(|| panic!("{series} of {query}"));
            labels.extend(metric.labels.iter().cloned());
            metrics += 1;
        }
        assert!(metrics > 0, "{query}");
        let selectors = query
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next());
        let in_selectors = selectors
            .flat_map(|selector| selector.split(','))
            .filter_map(|one| one.split(['=', '!']).next());
        let groups = query
            .split("by (")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let used = in_selectors.chain(groups.flat_map(|group| group.split(',')));
        for label in used.map(str::trim).filter(|label| !label.is_empty()) {
            assert!(labels.contains(label), "{label} of {query}");
        }
    }
}

/// The queries of a dashboard: its panels', and those of its variables.
fn collect(value: &serde_json::Value, queries: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(list) => list.iter().for_each(|entry| collect(entry, queries)),
        serde_json::Value::Object(map) => {
            for (name, entry) in map {
                match entry.as_str() {
                    Some(query) if name == "expr" || name == "definition" => {
                        queries.push(query.to_owned());
                    }
                    _ => collect(entry, queries),
                }
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_programs_expose_what_is_documented() {
    let route = "route=[{name='classify', path='/predictions/*', quality='q3', max_side=256, timeout_ms=120000, verify=1.0}]";
    let forward = "listen.forward=[\"127.0.0.1:0\"]";
    let stack = Stack::start(&["--set", route, "--set", forward], &[])
        .await
        .expect("a stack");
    let client = Client::default();
    let device = format!("http://{}", stack.device.address("reverse"));
    let photo = std::fs::read(workspace().join("examples/photos/goldfish.jpg")).expect("a photo");
    for (content_type, body) in [("image/jpeg", photo), ("text/plain", b"hello".to_vec())] {
        let target = format!("{device}{PATH}");
        client
            .post(&target, content_type, body.into())
            .await
            .expect("an answer");
    }
    let health = client.get(&format!("{device}/health")).await;
    assert_eq!(health.expect("an answer").status(), StatusCode::OK);
    tunnel(&stack).await;

    let metrics = format!("http://{}/metrics", stack.device.address("admin"));
    let deadline = Instant::now() + Duration::from_mins(2);
    let compared = async || {
        client
            .metric(&metrics, "sidecod_device_verify_total", &[])
            .await
            .expect("metrics")
    };
    while compared().await < 0.5 {
        assert!(Instant::now() < deadline, "no request was compared");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let documented = documented();
    let mut seen = BTreeSet::new();
    for program in [&stack.device, &stack.edge] {
        let url = format!("http://{}/metrics", program.address("admin"));
        let page = client.get(&url).await.expect("metrics");
        let exposed = exposed(&String::from_utf8_lossy(page.body()));
        for (name, metric) in &exposed {
            assert_eq!(documented.get(name), Some(metric), "{name}");
        }
        seen.extend(exposed.into_keys());
    }
    // What is left takes a fault.
    let left: Vec<_> = documented
        .keys()
        .filter(|name| !seen.contains(*name))
        .collect();
    println!("not exposed: {left:?}");
    assert!(seen.len() * 5 >= documented.len() * 3, "{left:?}");
}

/// A tunnel through the forward listener.
async fn tunnel(stack: &Stack) {
    let server = stack.server.address("data");
    let forward = TcpStream::connect(stack.device.address("forward")).await;
    let mut forward = forward.expect("connected");
    let request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n");
    forward.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = [0; 12];
    forward.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}
