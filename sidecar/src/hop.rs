//! Headers that end at the next hop (RFC 9110, section 7.6.1).

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};

/// Fields that are hop-by-hop whether or not `Connection` names them.
static ALWAYS: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what an intermediary must not forward: the fields that `Connection` names, `Connection`
/// itself and its relatives. Of `TE`, the `trailers` member stays (it is all that HTTP/2 allows).
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let ends_here = |name: &HeaderName| *name == TE || ALWAYS.contains(name);
    if !headers.keys().any(ends_here) {
        return;
    }
    let wants_trailers = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|member| {
            member
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case("trailers")
        });
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .filter(|name| {
            !ALWAYS
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known.as_str()))
        })
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&ALWAYS) {
        headers.remove(name);
    }
    headers.remove(TE);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes every field whose name starts with `prefix`.
pub fn remove_prefixed(headers: &mut HeaderMap, prefix: &str) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(prefix))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn named_and_known_fields_go_and_the_others_stay() {
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip, trailers;q=0.5"),
            ("trailer", "x-sum"),
            ("x-end", "3"),
            ("x-end", "4"),
        ] {
            map.append(name, HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut map);
        let mut expected = headers(&[("te", "trailers"), ("trailer", "x-sum"), ("x-end", "3")]);
        expected.append("x-end", HeaderValue::from_static("4"));
        assert_eq!(map, expected);
    }

    #[test]
    fn te_without_trailers_goes() {
        let mut map = headers(&[("te", "gzip")]);
        remove_hop_by_hop(&mut map);
        assert!(map.is_empty());
    }

    #[test]
    fn prefixed_fields_go() {
        let mut map = headers(&[
            ("sidecod-error", "x"),
            ("sidecod-token", "y"),
            ("accept", "*/*"),
        ]);
        remove_prefixed(&mut map, "sidecod-");
        assert_eq!(map, headers(&[("accept", "*/*")]));
    }
}
