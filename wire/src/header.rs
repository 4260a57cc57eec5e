//! Names of the HTTP headers that the sidecars add between themselves.
//!
//! All start with [`PREFIX`]. Neither an app's nor a model server's own header of such a name is
//! ever believed: the device drops the app's, the edge drops the model server's.

/// What the names of all Sidecod headers start with.
pub const PREFIX: &str = "sidecod-";
/// Request: the name of the edge's upstream that the request is for.
pub const UPSTREAM: &str = "sidecod-upstream";
/// Request: the token that admits the device to the edge.
pub const TOKEN: &str = "sidecod-token";
/// Request: the app named no host, so that the upstream's own is to stand in `Host`.
pub const NO_HOST: &str = "sidecod-no-host";
/// Answer: the kind of a sidecar's own error, so that it is never taken for one of the model.
pub const ERROR: &str = "sidecod-error";
