//! The edge's own errors, and what a device is told of them.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};
use sidecod_sidecar::Body;
use sidecod_sidecar::problem::problem;
use sidecod_sidecar::upstream::UpstreamError;

/// Why a request gets no answer of the model server. The text is for people; `kind` is what the
/// device acts on.
#[derive(Debug, thiserror::Error)]
pub enum Fail {
    /// The device has not shown the token.
    #[error("the token is missing or not the right one")]
    Unauthorized,
    /// Bundles are still being loaded.
    #[error("not ready: waiting for {0}")]
    NotReady(String),
    /// The upstream is not on the list.
    #[error("upstream {0} is not on the list")]
    UnknownUpstream(String),
    /// The frame was made with another bundle.
    #[error("no bundle here has a digest that begins with {0}")]
    UnknownBundle(String),
    /// The body is no frame, or a code in it is damaged.
    #[error("{0}")]
    BadFrame(String),
    /// The device asks something that is not known here.
    #[error("this edge does not know what it is asked")]
    UnknownAsk,
    /// Something is over its limit.
    #[error("{0}")]
    TooLarge(String),
    /// The frame has not arrived in time.
    #[error("{0}")]
    BodyTimeout(String),
    /// The pictures of a frame have taken too much of the request's time.
    #[error("the pictures were not decoded within {:.1} s, half of the request's time", .0.as_secs_f64())]
    Late(Duration),
    /// A queue is full.
    #[error("{0}")]
    Overloaded(&'static str),
    /// The model server has as many requests as it is given at a time.
    #[error(
        "upstream {0} has all the requests that it is given at a time, and none has ended within {1:?}"
    )]
    Busy(String, Duration),
    /// The decoder, or what writes the picture, failed.
    #[error("{0}")]
    DecodeFailed(String),
    /// The model server's answer is not what it is asked for.
    #[error("{0}")]
    BadAnswer(String),
    /// The model server gives no answer.
    #[error("upstream {0}: {1}")]
    Upstream(String, UpstreamError),
}

impl Fail {
    /// The status and the one word for programs.
    #[must_use]
    pub fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-ready"),
            Self::UnknownUpstream(_) => (StatusCode::FORBIDDEN, "unknown-upstream"),
            Self::UnknownBundle(_) => (StatusCode::CONFLICT, "unknown-bundle"),
            Self::UnknownAsk => (StatusCode::BAD_REQUEST, "unknown-ask"),
            Self::BadFrame(_) => (StatusCode::BAD_REQUEST, "bad-frame"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Self::BodyTimeout(_) => (StatusCode::REQUEST_TIMEOUT, "body-timeout"),
            Self::Late(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            Self::Overloaded(_) => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Busy(..) => (StatusCode::SERVICE_UNAVAILABLE, "upstream-busy"),
            Self::DecodeFailed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "decode-failed"),
            Self::BadAnswer(_) => (StatusCode::BAD_GATEWAY, "bad-answer"),
            Self::Upstream(_, UpstreamError::Target(_)) => (StatusCode::BAD_REQUEST, "bad-request"),
            Self::Upstream(_, UpstreamError::Unreachable(..)) => {
                (StatusCode::BAD_GATEWAY, "upstream-unreachable")
            }
            Self::Upstream(_, UpstreamError::Broken(..)) => {
                (StatusCode::BAD_GATEWAY, "upstream-broken")
            }
            Self::Upstream(_, UpstreamError::Timeout(..)) => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout")
            }
            Self::Upstream(_, UpstreamError::Loop(_)) => (StatusCode::LOOP_DETECTED, "loop"),
        }
    }

    /// The answer that says so.
    #[must_use]
    pub fn answer(&self) -> Response<Body> {
        let (status, kind) = self.kind();
        let mut answer = problem(status, kind, &self.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("1");
            answer.headers_mut().insert(RETRY_AFTER, soon);
        }
        answer
    }
}
