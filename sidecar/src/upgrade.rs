//! Requests to change the protocol of a connection (RFC 9110, section 7.8).

use std::time::Duration;

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Version};

/// Names the protocol in a request of the device to the edge.
pub const ASK: HeaderName = HeaderName::from_static("sidecod-upgrade");
/// Names the protocol in the edge's answer: what follows is that protocol, both ways.
pub const DONE: HeaderName = HeaderName::from_static("sidecod-upgraded");
/// An upgraded connection on which nothing happens for so long is ended.
pub const IDLE: Duration = Duration::from_hours(1);

/// The protocol that a request asks for, if it may be upgraded. HTTP/2 is none: a server may stay
/// with HTTP/1.1, and the sidecars do.
#[must_use]
pub fn wanted<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let asked = request.version() == Version::HTTP_11
        && request.method() != Method::CONNECT
        && values(headers, &CONNECTION).any(|value| says_upgrade(value.as_bytes()))
        && values(headers, &UPGRADE).any(|value| names_protocol(value.as_bytes()));
    asked.then(|| {
        let list: Vec<&[u8]> = values(headers, &UPGRADE)
            .map(HeaderValue::as_bytes)
            .collect();
        HeaderValue::from_bytes(&list.join(&b", "[..])).ok()
    })?
}

fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h HeaderValue> {
    headers.get_all(name).iter()
}

/// Whether a value of `Upgrade` names a protocol other than HTTP/2.
#[must_use]
pub fn names_protocol(value: &[u8]) -> bool {
    members(value).any(|member| !member.is_empty() && !member.eq_ignore_ascii_case(b"h2c"))
}

/// Whether a value of `Connection` says that `Upgrade` is meant.
#[must_use]
pub fn says_upgrade(value: &[u8]) -> bool {
    members(value).any(|member| member.eq_ignore_ascii_case(b"upgrade"))
}

fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}
