//! The page for people: one file, which loads nothing from elsewhere and reads `/metrics` and its
//! neighbours.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{AppendHeaders, IntoResponse};

use crate::request_id;

const PAGE: &str = include_str!("page.html");

/// The page of a program. Nothing but the script and the style that stand in it runs: they have a
/// number that is made for this answer alone.
pub(super) fn answer(program: &str) -> impl IntoResponse + use<> {
    let nonce = format!("{:016x}{:016x}", request_id::random(), request_id::random());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let page = PAGE
        .replace("{{nonce}}", &nonce)
        .replace("{{program}}", program);
    let headers = AppendHeaders([
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, "no-store".to_owned()),
        (REFERRER_POLICY, "no-referrer".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ]);
    (headers, page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        let answer = answer("proxy-device").into_response();
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"));
        assert!(!policy.contains("unsafe"));
        for elsewhere in ["src=", "@import", "url(", "innerHTML", "onclick"] {
            assert!(!PAGE.contains(elsewhere), "{elsewhere}");
        }
        // The one address is the name of SVG.
        let addresses: Vec<_> = PAGE.matches("://").collect();
        assert_eq!(addresses.len(), 1);
    }
}
