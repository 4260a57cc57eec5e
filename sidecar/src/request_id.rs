//! A name for each request, the same in the logs of app, device, edge and model server: the app's own
//! `X-Request-Id`, or one that the device makes and tells the edge alone.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field in which apps send theirs.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The field in which a device tells the edge one that it has made.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("sidecod-request-id");
/// Characters of an id that is taken over.
const MOST: usize = 128;

/// A request's id: visible ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// One that no other request has.
    #[must_use]
    pub fn new() -> Self {
        Self(format!("{:016x}", random()))
    }

    /// Its characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As the value of a field.
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id that a request came with, from the app or the device; none where it is none.
#[must_use]
pub fn of(headers: &HeaderMap) -> Option<RequestId> {
    let value = headers.get(X_REQUEST_ID).or(headers.get(REQUEST_ID))?;
    let good =
        (1..=MOST).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    good.then(|| Some(RequestId(value.to_str().ok()?.to_owned())))?
}

/// A number that is hard to guess and does not come twice: a keyed hash (the key is random, and the
/// process' own) of how many there were before.
#[must_use]
pub fn random() -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static BEFORE: AtomicU64 = AtomicU64::new(0);
    KEY.hash_one(BEFORE.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_taken_or_made() {
        let with = |name: HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            of(&headers).map(|id| id.to_string())
        };
        assert_eq!(with(X_REQUEST_ID, "a-1"), Some("a-1".to_owned()));
        assert_eq!(with(REQUEST_ID, "b"), Some("b".to_owned()));
        for bad in ["", "a b", &"x".repeat(129)] {
            assert_eq!(with(X_REQUEST_ID, bad), None, "{bad}");
        }
        let made: HashSet<_> = (0..1000).map(|_| RequestId::new().0).collect();
        assert!(made.len() == 1000 && made.iter().all(|id| id.len() == 16));
    }
}
