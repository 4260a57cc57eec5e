//! The rules, and that the places where the bytes of a connection are split change nothing.

use std::io;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const MAX: usize = 1 << 10;

/// Walks over pieces of `size` bytes; says how many bytes were good.
fn walk(bytes: &[u8], size: usize) -> Result<bool, (usize, bool, Violation)> {
    let mut walk = Walk::new(MAX);
    for (index, piece) in bytes.chunks(size).enumerate() {
        walk.over(piece)
            .map_err(|stop| (index * size + stop.good, stop.in_head, stop.rule))?;
    }
    Ok(walk.is_between())
}

const HOST: &str = "Host: a\r\n";

fn good() -> Vec<String> {
    let next = format!("GET /next HTTP/1.1\r\n{HOST}\r\n");
    [
        format!("GET / HTTP/1.1\r\n{HOST}\r\n"),
        format!("\r\nGET / HTTP/1.1\r\n{HOST}\r\n"),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "M-SEARCH * HTTP/1.1\r\nHost:\r\nEmpty:\r\nTab:\tx\t\r\n\r\n".to_owned(),
        format!("POST /a HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\n\r\n\r\nx"),
        format!("POST /a HTTP/1.1\r\n{HOST}content-length:0\r\n\r\n"),
        format!(
            "POST /a HTTP/1.1\r\n{HOST}Transfer-Encoding: Chunked\r\n\r\n\
             3;name=\"v\"\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n"
        ),
        format!(
            "POST /a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n\
             1\r\na\r\n000\r\nx: 1\r\ny:\r\n\r\n"
        ),
    ]
    .into_iter()
    .map(|text| text + &next)
    .collect()
}

/// Each with the number of good bytes, as the text before the mark `|`.
fn bad() -> Vec<String> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{HOST}{fields}");
    let chunked = |body: &str| get(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
    vec![
        get("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r|\n"),
        get("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r|\n"),
        get("Content-Length: 1\r\nContent-Length: 1\r|\n"),
        get("Content-Length: 1\r\nContent-Length: 2\r|\n"),
        get("Content-Length: 1, 1\r|\n"),
        get("Content-Length: +1\r|\n"),
        get("Content-Length: -1\r|\n"),
        get("Content-Length: 0x1\r|\n"),
        get("Content-Length: 1 1\r|\n"),
        get("Content-Length:\r|\n"),
        get("Content-Length: 99999999999999999999\r|\n"),
        get("Transfer-Encoding: gzip, chunked\r|\n"),
        get("Transfer-Encoding: chunked, chunked\r|\n"),
        get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r|\n"),
        get("Transfer-Encoding: identity\r|\n"),
        get("Transfer-Encoding: xchunked\r|\n"),
        get("Transfer-Encoding: \"chunked\"\r|\n"),
        get("Transfer-Encoding:\x0bchunked\r|\n"),
        get("Transfer-Encoding: chunked;a=b\r|\n"),
        get("Transfer-Encoding:\r|\n"),
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r|\n".to_owned(),
        get("x: 1\r\n folded\r|\n"),
        get("x: 1\r\n\tfolded\r|\n"),
        format!("GET / HTTP/1.1\r\n x: 1\r|\n{HOST}\r\n"),
        get("x : 1\r|\n"),
        get("x\t: 1\r|\n"),
        get(": 1\r|\n"),
        get("no colon\r|\n"),
        get("a b: 1\r|\n"),
        get("x: a\rb\r|\n"),
        get("x: a\0b\r|\n"),
        get("x: a\x7fb\r|\n"),
        get("x: a|\n"),
        get("x: 1\r\n|\n"),
        "GET / HTTP/1.1\r\n\r|\n".to_owned(),
        get("Host: b\r\n\r|\n"),
        get("Host: a\r\n\r|\n"),
        format!("GET  / HTTP/1.1\r|\n{HOST}"),
        format!(" GET / HTTP/1.1\r|\n{HOST}"),
        format!("GET / HTTP/1.1 \r|\n{HOST}"),
        format!("GET /a b HTTP/1.1\r|\n{HOST}"),
        format!("GET /\tHTTP/1.1\r|\n{HOST}"),
        format!("GET a HTTP/1.1\r|\n{HOST}"),
        format!("GET /#a HTTP/1.1\r|\n{HOST}"),
        format!("GET / HTTP/1.2\r|\n{HOST}"),
        format!("GET / http/1.1\r|\n{HOST}"),
        format!("GET / HTTP/1.1|\n{HOST}"),
        "GET /\r|\n".to_owned(),
        "PRI * HTTP/2.0\r|\n".to_owned(),
        format!("G(T / HTTP/1.1\r|\n{HOST}"),
        chunked("|g\r\n"),
        chunked("|\r\n"),
        chunked("|-1\r\n"),
        chunked("|+1\r\n"),
        chunked("0|x1\r\na\r\n"),
        chunked("1| \r\na\r\n"),
        chunked("| 1\r\na\r\n"),
        chunked("1|_0\r\n"),
        chunked("1|\na\r\n"),
        chunked("1\r|\ra\r\n"),
        chunked("1\r\na|b\r\n"),
        chunked("1\r\na|\n0\r\n\r\n"),
        chunked("1\r\na\r|0"),
        chunked("1;a|\n"),
        chunked("1;a\r|a"),
        chunked("1;|\0\r\n"),
        chunked("1000000000000000|00\r\n"),
        chunked("0\r\nx: 1|\n\r\n"),
        chunked("0\r\nx : 1\r|\n\r\n"),
        chunked("0\r\n x: 1\r|\n\r\n"),
        chunked("0\r\nx: a\rb\r|\n\r\n"),
        chunked("0\r\n|\n"),
    ]
}

#[test]
fn what_is_right_passes_wherever_it_is_split() {
    for text in good() {
        for size in 1..=text.len() {
            assert_eq!(walk(text.as_bytes(), size), Ok(true), "{text:?} by {size}");
        }
    }
}

#[test]
fn what_is_wrong_stops_at_its_byte_wherever_it_is_split() {
    for text in bad() {
        // After a good request on the same connection, too.
        for before in [String::new(), good()[5].clone()] {
            let text = before + &text;
            let good = text.find('|').unwrap();
            let bytes = text.replacen('|', "", 1).into_bytes();
            for size in 1..=bytes.len() {
                let stopped = walk(&bytes, size).map_err(|(at, ..)| at);
                assert_eq!(stopped, Err(good), "{text:?} by {size}");
            }
        }
    }
}

#[test]
fn nothing_is_checked_after_an_upgrade_or_a_connect() {
    let rubbish = "\r\n\r\n\0 no : http\n\n";
    for head in [
        format!("CONNECT a:1 HTTP/1.1\r\n{HOST}\r\n"),
        format!(
            "GET / HTTP/1.1\r\n{HOST}Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
        ),
        format!(
            "POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\nabc"
        ),
    ] {
        assert_eq!(walk((head + rubbish).as_bytes(), 7), Ok(false));
    }
    for fields in [
        "Connection: upgrade\r\nUpgrade: h2c\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
    ] {
        let text = format!("GET / HTTP/1.1\r\n{HOST}{fields}\r\n{rubbish}");
        assert!(walk(text.as_bytes(), 7).is_err(), "{fields}");
    }
}

#[test]
fn memory_is_bounded() {
    let long = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(10 * MAX));
    let mut walk = Walk::new(MAX);
    for piece in long.as_bytes().chunks(100) {
        walk.over(piece).unwrap();
    }
    assert!(matches!(walk.state, State::Off));

    let start = format!("GET / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
    for endless in [
        "1;".to_owned() + &"e".repeat(100_000),
        "0\r\nx:".to_owned() + &"e".repeat(100_000),
    ] {
        let mut walk = Walk::new(MAX);
        assert!(walk.over((start.clone() + &endless).as_bytes()).is_err());
    }
}

proptest! {
    #[test]
    fn splits_change_nothing(
        pick in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        size in 1..50_usize,
    ) {
        let texts = good();
        let mut bytes = texts[pick.index(texts.len())].clone().into_bytes();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = walk(&bytes, bytes.len());
        prop_assert_eq!(walk(&bytes, size), whole);
        prop_assert_eq!(walk(&bytes, 1), whole);
    }
}

#[tokio::test]
async fn a_reader_gets_what_is_good_and_then_what_is_refused() {
    for text in bad() {
        let good = text.find('|').unwrap();
        let bytes = text.replacen('|', "", 1).into_bytes();
        for size in [1, 3, 1000] {
            let (mut app, socket) = tokio::io::duplex(64);
            let mut stream = Stream::new(socket, MAX, ());
            let sent = bytes.clone();
            tokio::spawn(async move {
                let _ = app.write_all(&sent).await;
                std::future::pending::<()>().await;
            });
            let mut got = Vec::new();
            loop {
                let mut piece = vec![0; size];
                match stream.read(&mut piece).await {
                    Ok(read) => got.extend_from_slice(&piece[..read]),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                        assert_eq!(got, &bytes[..good], "{text:?}");
                        break;
                    }
                }
                if got.len() == good + 5 {
                    assert_eq!(&got[..good], &bytes[..good], "{text:?}");
                    assert_eq!(&got[good..], b"\0\r\n\r\n");
                    break;
                }
            }
        }
    }
}
