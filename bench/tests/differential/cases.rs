//! The requests: a product of what requests usually vary in, and a list of odd ones.

/// A request, and how the server is to answer it.
#[derive(Debug, Clone)]
pub struct Case {
    pub id: String,
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    pub answer: &'static str,
}

impl Case {
    fn new(id: String, line: &str, fields: &str, body: &[u8], answer: &'static str) -> Self {
        let host = if fields.to_lowercase().contains("host:") || line.ends_with("1.0") {
            ""
        } else {
            "Host: app.example:81\r\n"
        };
        let head = format!("{line}\r\n{host}X-Case: {id}\r\nX-Answer: {answer}\r\n{fields}\r\n");
        Self {
            id,
            head: latin1(&head),
            body: body.to_vec(),
            answer,
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }
}

/// Characters to U+00FF as one byte each.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| c as u8).collect()
}

static LARGE: [u8; 200_000] = [b'q'; 200_000];

fn bodies() -> Vec<(&'static str, String, Vec<u8>)> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    vec![
        ("none", String::new(), Vec::new()),
        ("zero", "Content-Length: 0\r\n".into(), Vec::new()),
        (
            "small",
            "Content-Type: text/plain\r\nContent-Length: 5\r\n".into(),
            b"abcde".to_vec(),
        ),
        (
            "large",
            format!("Content-Length: {}\r\n", LARGE.len()),
            LARGE.to_vec(),
        ),
        (
            "chunked",
            chunked.into(),
            b"5\r\nabcde\r\n1a;x=\"y\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n".to_vec(),
        ),
        ("no-chunk", chunked.into(), b"0\r\n\r\n".to_vec()),
        (
            "trailers",
            format!("{chunked}Trailer: X-Sum\r\n"),
            b"5\r\nabcde\r\n0\r\nX-Sum: 7\r\n\r\n".to_vec(),
        ),
        (
            "expect",
            "Content-Length: 5\r\nExpect: 100-continue\r\n".into(),
            b"abcde".to_vec(),
        ),
    ]
}

/// All of them.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let methods = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND",
    ];
    let answers = [
        "text", "empty", "204", "304", "404", "500", "chunked", "trailers", "large",
    ];
    for method in methods {
        for (kind, fields, body) in bodies() {
            for answer in answers {
                // Each takes the moment in which a server may refuse.
                if kind == "expect" && !["text", "404"].contains(&answer) {
                    continue;
                }
                let id = format!("{method}-{kind}-{answer}");
                let fields = format!("TE: trailers\r\nConnection: TE\r\n{fields}");
                let line = format!("{method} /product?x=1 HTTP/1.1");
                cases.push(Case::new(id, &line, &fields, &body, answer));
            }
        }
    }
    cases.extend(odd());
    cases
}

fn odd() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |line: &str, fields: &str, body: &[u8], answer| {
        let id = format!("odd-{}", cases.len());
        cases.push(Case::new(id, line, fields, body, answer));
    };
    for target in [
        "/",
        "//",
        "//a//b/",
        "/a/../b/./c",
        "/%2e%2E/%2f%00",
        "/%zz%",
        "/a?",
        "/a??b=c?d",
        "/?&&==",
        "/a;b=c,d",
        "/(a)!$'*+@:~_-.",
        "/a%20b+c",
        "/a[0]=b",
        "/a|b^c`d",
        "/a{b}",
        "/a\"b\"",
        "/<a>",
        "/a\\b",
        "/\u{e9}",
        "/a?\u{ff}\u{80}",
        "/a?q=1&q=2",
        "/a=b?http://c/d?e",
        "*",
        "/*",
    ] {
        add(&format!("GET {target} HTTP/1.1"), "", b"", "text");
    }
    add(
        &format!("GET /{} HTTP/1.1", "p".repeat(8_000)),
        "",
        b"",
        "text",
    );
    for line in [
        "OPTIONS * HTTP/1.1",
        "GET http://other.example/a?b HTTP/1.1",
        "GET http://other.example:8080 HTTP/1.1",
        "get / HTTP/1.1",
        "X!#$%&'*+-.^_`|~9 / HTTP/1.1",
        "TRACE / HTTP/1.1",
        "PATCH /a HTTP/1.1",
        "QUERY /a HTTP/1.1",
    ] {
        add(line, "", b"", "text");
    }
    for fields in [
        "Host:  spaced.example \r\n",
        "Host: [::1]:80\r\n",
        "Host: UPPER.Example\r\n",
        "Cookie: a=1; b=2\r\n",
        "X-A: 1\r\nX-B: 2\r\nx-a: 3\r\nX-A: 1\r\n",
        "Accept: a/b\r\nAccept: c/d, e/f\r\n",
        "X-Empty:\r\nX-Spaces:   \r\n",
        "X-Odd: \u{e9}\u{ff}\u{80}|\t\"'\r\n",
        "Authorization: Bearer x.y.z\r\nProxy-Authorization: Basic eDp5\r\n",
        "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nVia: 1.0 a\r\n",
        "Accept-Encoding: gzip, br\r\nRange: bytes=0-1\r\nIf-None-Match: \"a\"\r\n",
        "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\nUser-Agent: me\r\nFrom: a@b\r\n",
        "Server-Timing: a;dur=1\r\nPriority: u=1\r\n",
        "Keep-Alive: timeout=9\r\nConnection: keep-alive\r\n",
        "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\n",
        "TE: gzip\r\nConnection: TE\r\n",
        "TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n",
        "Connection: close\r\n",
        "X-Request-Id: mine-1\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n",
        "Max-Forwards: 0\r\nX_under: 1\r\n9: 9\r\n!#$%&'*+-.^`|~: x\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        "Upgrade: websocket\r\n",
        "Content-Type: application/json\r\nContent-Encoding: identity\r\n",
    ] {
        add("GET /fields HTTP/1.1", fields, b"", "text");
    }
    add(
        "GET /l HTTP/1.1",
        &format!("X-Large: {}\r\n", "v".repeat(50_000)),
        b"",
        "text",
    );
    let many: Vec<String> = (0..90).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let many = many.concat();
    add("GET /m HTTP/1.1", &many, b"", "text");
    for answer in [
        "redirect",
        "reason",
        "599",
        "hints",
        "fields",
        "hop",
        "large-head",
        "close",
        "pieces",
    ] {
        add("GET /answers HTTP/1.1", "", b"", answer);
        add("HEAD /answers HTTP/1.1", "", b"", answer);
    }
    for answer in ["until-close", "broken", "broken-chunks"] {
        add("GET /answers HTTP/1.1", "", b"", answer);
    }
    add("GET /trailers HTTP/1.1", "", b"", "trailers");
    for answer in ["text", "chunked", "404", "empty", "until-close"] {
        add("GET /old HTTP/1.0", "", b"", answer);
        add(
            "GET /old HTTP/1.0",
            "Host: old.example\r\nConnection: keep-alive\r\n",
            b"",
            answer,
        );
        add(
            "POST /old HTTP/1.0",
            "Host: a\r\nContent-Length: 3\r\n",
            b"abc",
            answer,
        );
    }
    let length = "Content-Length: 005\r\n";
    add("POST /zeros HTTP/1.1", length, b"abcde", "text");
    add(
        "POST /early HTTP/1.1",
        "Content-Length: 100\r\n",
        &[b'e'; 100],
        "early",
    );
    add(
        "POST /early HTTP/1.1",
        &format!("Content-Length: {}\r\n", LARGE.len()),
        &LARGE,
        "early",
    );
    let expect = "Content-Length: 100\r\nExpect: 100-continue\r\n";
    add("POST /refused HTTP/1.1", expect, &[b'e'; 100], "refuse");
    add(
        "POST /trailers HTTP/1.1",
        "Transfer-Encoding: chunked\r\n",
        b"0\r\nX-Unannounced: 1\r\n\r\n",
        "text",
    );
    cases
}

/// Requests that another program might read differently; each is refused with 400, and the
/// connection closed.
pub fn attacks() -> Vec<String> {
    let post =
        |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    vec![
        post(
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        post(
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "0\r\n\r\n",
        ),
        post("Content-Length: 5\r\nContent-Length: 5\r\n", "abcde"),
        post("Content-Length: 5\r\nContent-Length: 6\r\n", "abcdef"),
        post("Content-Length: 5, 5\r\n", "abcde"),
        post("Content-Length: +5\r\n", "abcde"),
        post("Content-Length: -5\r\n", "abcde"),
        post("Content-Length: 0x5\r\n", "abcde"),
        post("Content-Length: 5 5\r\n", "abcde"),
        post("Content-Length:\r\n", ""),
        post("Content-Length: 99999999999999999999\r\n", ""),
        post("Content-Length : 5\r\n", "abcde"),
        post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        post(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        post("Transfer-Encoding: identity\r\n", ""),
        post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        post("X: 1\r\n folded\r\n", ""),
        post("X: 1\r\n\tfolded\r\n", ""),
        post(" X: 1\r\n", ""),
        post("X : 1\r\n", ""),
        post(": 1\r\n", ""),
        post("no colon\r\n", ""),
        post("X: a\rb\r\n", ""),
        post("X: a\0b\r\n", ""),
        post("X: a\n", ""),
        post("Host: b\r\n", ""),
        post("Host: a\r\n", ""),
        "GET / HTTP/1.1\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(),
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET / x HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET x HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(),
        "GET / HTTP/1.1\nHost: a\n\n".into(),
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /\r\n\r\n".into(),
        chunked("g\r\n\r\n"),
        chunked("-1\r\n"),
        chunked("0x1\r\na\r\n0\r\n\r\n"),
        chunked("1 \r\na\r\n0\r\n\r\n"),
        chunked("1\na\r\n0\r\n\r\n"),
        chunked("1\r\nab\r\n0\r\n\r\n"),
        chunked("1\r\na\n0\r\n\r\n"),
        chunked("1;a\nb\r\na\r\n0\r\n\r\n"),
        chunked("10000000000000000\r\n"),
        chunked("0\r\nX : 1\r\n\r\n"),
        chunked("0\r\n X: 1\r\n\r\n"),
    ]
}
