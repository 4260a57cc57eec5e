//! Names of the HTTP headers that the sidecars add between themselves.
//!
//! All but [`JSON_LENGTH`] start with [`PREFIX`]. Neither an app's nor a model server's own header of such a name is
//! ever believed: the device drops the app's, the edge drops the model server's.

use http::HeaderName;

/// What the names of all Sidecod headers start with.
pub const PREFIX: &str = "sidecod-";
/// Request: the name of the edge's upstream that the request is for.
pub const UPSTREAM: HeaderName = HeaderName::from_static("sidecod-upstream");
/// Request: the token that admits the device to the edge.
pub const TOKEN: HeaderName = HeaderName::from_static("sidecod-token");
/// Request: the app named no host, so that the upstream's own is to stand in `Host`.
pub const NO_HOST: HeaderName = HeaderName::from_static("sidecod-no-host");
/// Request: milliseconds in which the head of the answer is of use, counted from its arrival.
pub const DEADLINE: HeaderName = HeaderName::from_static("sidecod-deadline");
/// Answer: the kind of a sidecar's own error, so that it is never taken for one of the model.
pub const ERROR: HeaderName = HeaderName::from_static("sidecod-error");
/// Request: the protocol that the model server is to be called in, [`HTTP2`]; without it HTTP/1.1.
pub const PROTOCOL: HeaderName = HeaderName::from_static("sidecod-protocol");
/// The value of [`PROTOCOL`] for HTTP/2 without an upgrade before it, as gRPC has it.
pub const HTTP2: &str = "h2";
/// Request of the Open Inference Protocol: bytes of the JSON before the binary data. No header of
/// Sidecod, but one that a frame makes the edge write anew.
pub const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Request: what a device asks of the edge itself, [`ASK_PROFILE`] or [`ASK_PROBE`]; the upstream
/// never sees it.
pub const ASK: HeaderName = HeaderName::from_static("sidecod-ask");
/// The value of [`ASK`] for the edge's profile, JSON; 204 where it has none.
pub const ASK_PROFILE: &str = "profile";
/// The value of [`ASK`] for nothing but an answer, once the body has arrived.
pub const ASK_PROBE: &str = "probe";
