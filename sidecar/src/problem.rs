//! A sidecar's own errors, as `application/problem+json` (RFC 9457).

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use sidecod_wire::header::ERROR;

use crate::body::{self, Body};

/// An answer that says what went wrong. `kind` is one word for programs, `detail` a sentence for
/// people.
#[must_use]
pub fn problem(status: StatusCode, kind: &'static str, detail: &str) -> Response<Body> {
    let json = serde_json::json!({
        "type": format!("urn:sidecod:{kind}"),
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut answer = Response::new(body::full(json.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ERROR, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn says_what_went_wrong_to_programs_and_people() {
        let answer = problem(
            StatusCode::BAD_GATEWAY,
            "upstream-unreachable",
            "no \"one\"",
        );
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.headers()[ERROR], "upstream-unreachable");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "urn:sidecod:upstream-unreachable",
                "title": "Bad Gateway",
                "status": 502,
                "detail": "no \"one\"",
            })
        );
    }
}
