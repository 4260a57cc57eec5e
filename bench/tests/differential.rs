//! The same requests straight to a server and through both programs: what the server saw is the same,
//! and what the client got, but for the differences that are named here (and in docs/http.md).

#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking

#[path = "differential/cases.rs"]
mod cases;
#[path = "differential/client.rs"]
mod client;
#[path = "differential/pair.rs"]
mod pair;
#[path = "differential/raw.rs"]
mod raw;
#[path = "differential/server.rs"]
mod server;

use std::collections::BTreeMap;

use cases::Case;
use client::Got;
use pair::Pair;
use raw::{Fields, Message};
use tokio::io::AsyncWriteExt;

/// What is different on purpose, and why.
const DELIBERATE: [(&str, &str); 12] = [
    (
        "hop-by-hop fields",
        "Connection, what it names, Keep-Alive, TE but trailers, Upgrade: they end at the next hop (RFC 9110, 7.6.1)",
    ),
    (
        "version",
        "a sidecar speaks HTTP/1.1 to the server, and to the app at most the app's version",
    ),
    (
        "absolute target",
        "the target's authority becomes the Host (RFC 9112, 3.2.2)",
    ),
    (
        "Host of HTTP/1.0",
        "a request without one gets the server's own: HTTP/1.1 wants it",
    ),
    (
        "length",
        "a body has one Content-Length without leading zeros, or chunks; none may stand for an empty one in chunks",
    ),
    ("reason", "HTTP/2 has none; the app gets the standard one"),
    (
        "interim answers",
        "103 and its like are not passed on; 100 is",
    ),
    (
        "end by closing",
        "an answer that only its connection's end ends crosses in chunks; the app's connection is kept",
    ),
    (
        "trailers",
        "they are passed on where Trailer announces them and, in answers, TE asks for them (RFC 9110, 6.5.1); HEAD has no Trailer",
    ),
    (
        "last bytes before a break",
        "an answer that breaks off may lose those that were on their way",
    ),
    ("targets", "bytes that no URI may have are refused with 400"),
    (
        "request id",
        "an app that sends X-Request-Id gets it back where the server does not give it",
    ),
];

/// Differences that were used, with their number.
#[derive(Default)]
struct Notes(BTreeMap<&'static str, usize>);

impl Notes {
    fn note(&mut self, name: &'static str) {
        assert!(DELIBERATE.iter().any(|(known, _)| *known == name), "{name}");
        *self.0.entry(name).or_default() += 1;
    }
}

/// Fields by name, values in order; without those of one hop.
fn end_to_end(message: &Message, notes: &mut Notes) -> BTreeMap<String, Vec<Vec<u8>>> {
    const HOP: [&str; 7] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "content-length",
    ];
    let named: Vec<String> = message
        .all("connection")
        .iter()
        .flat_map(|value| {
            String::from_utf8_lossy(value)
                .to_lowercase()
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    let mut fields = BTreeMap::<String, Vec<Vec<u8>>>::new();
    for (name, value) in &message.fields {
        if HOP.contains(&&name[..]) || named.contains(name) {
            if !["transfer-encoding", "content-length"].contains(&&name[..]) {
                notes.note("hop-by-hop fields");
            }
        } else {
            fields.entry(name.clone()).or_default().push(value.clone());
        }
    }
    fields
}

fn same_fields(
    direct: &Message,
    through: &Message,
    case: &Case,
    notes: &mut Notes,
) -> Result<(), String> {
    let (mut a, mut b) = (
        end_to_end(direct, notes),
        end_to_end(through, &mut Notes::default()),
    );
    let line = case.text();
    if line.starts_with("HEAD") && a.contains_key("trailer") && !b.contains_key("trailer") {
        notes.note("trailers");
        a.remove("trailer");
    }
    if line.contains(" http://") {
        let host = line
            .split("//")
            .nth(1)
            .unwrap_or_default()
            .split([' ', '/'])
            .next()
            .unwrap_or_default();
        a.entry("host".into())
            .and_modify(|hosts| *hosts = vec![host.as_bytes().to_vec()]);
    } else if !a.contains_key("host") && b.contains_key("host") {
        notes.note("Host of HTTP/1.0");
        b.remove("host");
    }
    if a != b {
        return Err(format!(
            "fields\n  direct  {}\n  through {}",
            show(&a),
            show(&b)
        ));
    }
    Ok(())
}

fn show(fields: &BTreeMap<String, Vec<Vec<u8>>>) -> String {
    let values = fields.iter().flat_map(|(name, values)| {
        values
            .iter()
            .map(move |value| format!("{name}: {:.60}", String::from_utf8_lossy(value)))
    });
    values.collect::<Vec<_>>().join(" | ")
}

fn same_trailers(
    direct: &Fields,
    through: &Fields,
    notes: &mut Notes,
    may_go: bool,
) -> Result<(), String> {
    if may_go && through.is_empty() && !direct.is_empty() {
        notes.note("trailers");
        return Ok(());
    }
    if direct == through {
        Ok(())
    } else {
        Err(format!("trailers {direct:?} {through:?}"))
    }
}

/// Content-Length as a number, where there is one.
fn length(message: &Message) -> Option<u64> {
    message.get("content-length")?.parse().ok()
}

fn same_request(
    direct: &Message,
    through: &Message,
    case: &Case,
    notes: &mut Notes,
) -> Result<(), String> {
    let mut target = direct.start[1].clone();
    if let Some(rest) = target.strip_prefix("http://") {
        notes.note("absolute target");
        let at = rest.find('/');
        target = at.map_or("/", |at| &rest[at..]).to_owned();
    }
    if (&direct.start[0], &target) != (&through.start[0], &through.start[1]) {
        return Err(format!("{:?} {:?}", direct.start, through.start));
    }
    if direct.start[2] != through.start[2] {
        notes.note("version");
    }
    if through.start[2] != "HTTP/1.1" {
        return Err(through.start[2].clone());
    }
    same_fields(direct, through, case, notes)?;
    if direct.get("content-length") != through.get("content-length") {
        notes.note("length");
    }
    let chunked = |message: &Message| message.get("transfer-encoding").is_some();
    let none = direct.body.is_empty() && through.body.is_empty();
    if none && direct.trailers.is_empty() && chunked(direct) && !chunked(through) {
        notes.note("length");
    } else if length(direct) != length(through) || chunked(direct) != chunked(through) {
        return Err(format!(
            "framing\n  direct  {:?}\n  through {:?}",
            direct.fields, through.fields
        ));
    }
    if direct.body != through.body || direct.whole != through.whole {
        return Err(format!("body {} {}", direct.body.len(), through.body.len()));
    }
    let announced = direct.get("trailer").is_some();
    same_trailers(&direct.trailers, &through.trailers, notes, !announced)
}

fn same_answer(direct: &Got, through: &Got, case: &Case, notes: &mut Notes) -> Result<(), String> {
    let (Some(a), Some(b)) = (&direct.answer, &through.answer) else {
        return if direct.answer == through.answer {
            Ok(())
        } else {
            Err(format!("{direct:?}\n{through:?}"))
        };
    };
    let early: Vec<u16> = direct
        .interim
        .iter()
        .copied()
        .filter(|status| *status == 100)
        .collect();
    if early != direct.interim {
        notes.note("interim answers");
    }
    if early != through.interim {
        return Err(format!(
            "interim {:?} {:?}",
            direct.interim, through.interim
        ));
    }
    if a.start[0] != b.start[0] {
        notes.note("version");
    }
    if a.start[2] != b.start[2] {
        notes.note("reason");
    }
    if a.status() != b.status() {
        return Err(format!(
            "status {:?} {:?}\n{}",
            a.start,
            b.start,
            String::from_utf8_lossy(&b.body)
        ));
    }
    let mut b = b.clone();
    if case.text().contains("X-Request-Id: mine-1") && a.get("x-request-id").is_none() {
        let (ids, others): (Fields, Fields) = std::mem::take(&mut b.fields)
            .into_iter()
            .partition(|(name, _)| name == "x-request-id");
        b.fields = others;
        if ids != [("x-request-id".to_owned(), b"mine-1".to_vec())] {
            return Err(format!("request id {ids:?}"));
        }
        notes.note("request id");
    }
    let b = &b;
    same_fields(a, b, case, notes)?;
    let old = case.text().contains("HTTP/1.0\r\n");
    if a.until_close && !b.until_close {
        notes.note("end by closing");
    } else if length(a) != length(b) {
        return Err(format!("length {:?} {:?}", length(a), length(b)));
    } else if a.until_close != b.until_close && !old {
        return Err("framing".into());
    }
    // Both broken: HTTP/2 may drop what was on its way.
    if !a.whole && !b.whole && a.body != b.body && a.body.starts_with(&b.body) {
        notes.note("last bytes before a break");
    } else if a.body != b.body {
        return Err(format!("body {} {}", a.body.len(), b.body.len()));
    }
    // HTTP/1.0 knows no broken end of a body without a length.
    if a.whole != b.whole && !old {
        return Err(format!("whole {} {}", a.whole, b.whole));
    }
    let asked = case.text().to_lowercase().contains("te: trailers");
    same_trailers(&a.trailers, &b.trailers, notes, !asked)?;
    let closes = a.until_close || a.all("connection").contains(&&b"close"[..]);
    if closes && through.kept {
        notes.note("end by closing");
    } else if direct.kept != through.kept && !old {
        return Err(format!("connection kept: {} {}", direct.kept, through.kept));
    }
    Ok(())
}

#[tokio::test]
async fn what_crosses_is_what_was_sent() {
    let (server, seen) = server::start().await;
    let pair = Pair::start(server).await;
    let mut notes = Notes::default();
    let (mut equal, mut failures) = (0, Vec::new());
    let cases = cases::all();
    for case in &cases {
        let next = b"GET /next HTTP/1.1\r\nHost: a\r\nX-Case: next\r\n\r\n";
        let ask = async |to| client::exchange(to, &case.head, &case.body, next).await;
        let direct = ask(server).await;
        let expected = seen.take(&case.id);
        let through = ask(pair.address()).await;
        let got = seen.take(&case.id);
        let uri = through
            .answer
            .as_ref()
            .is_some_and(|answer| answer.status() == 400);
        if uri && got.is_empty() && odd_target(case) {
            notes.note("targets");
            equal += 1;
            continue;
        }
        let compared = match (&expected[..], &got[..]) {
            ([a], [b]) => same_request(a, b, case, &mut notes)
                .and_then(|()| same_answer(&direct, &through, case, &mut notes)),
            (a, b) => Err(format!(
                "seen {} times, {} times; {:?}",
                a.len(),
                b.len(),
                through
                    .answer
                    .map(|a| (a.start, String::from_utf8_lossy(&a.body).into_owned()))
            )),
        };
        match compared {
            Ok(()) => equal += 1,
            Err(difference) => failures.push(format!(
                "{} {:?} -> {}: {difference}",
                case.id,
                case.text().lines().next(),
                case.answer
            )),
        }
    }
    println!("{} requests, {equal} equal", cases.len());
    for (name, why) in DELIBERATE {
        println!(
            "  {:4} x {name}: {why}",
            notes.0.get(name).copied().unwrap_or(0)
        );
    }
    assert!(
        failures.is_empty(),
        "{} differ\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Whether the target has bytes that no URI has.
fn odd_target(case: &Case) -> bool {
    let target = case
        .head
        .split(|&byte| byte == b' ')
        .nth(1)
        .unwrap_or_default();
    target
        .iter()
        .any(|byte| *byte >= 0x80 || b"\"<>\\^`{|}".contains(byte))
}

#[tokio::test]
async fn attacks_on_framing_are_refused_and_the_connection_closed() {
    let (server, seen) = server::start().await;
    let pair = Pair::start(server).await;
    let attacks = cases::attacks();
    let mut failures = Vec::new();
    for attack in &attacks {
        let mut stream = client::connect(pair.address()).await;
        stream
            .get_mut()
            .write_all(attack.as_bytes())
            .await
            .expect("sent");
        let method = attack.split(' ').next().unwrap_or_default();
        let got = client::answer(&mut stream, method).await;
        let refused = got
            .answer
            .as_ref()
            .is_some_and(|answer| answer.status() == 400);
        if !refused || !client::ends(&mut stream).await {
            failures.push(format!("{attack:?}: {:?}", got.answer));
        }
        for seen in seen.take("") {
            if seen.whole {
                failures.push(format!("{attack:?} reached the server: {seen:?}"));
            }
        }
    }
    println!("{} attacks refused", attacks.len() - failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
