//! What both sidecars are, apart from their jobs: a typed configuration, listeners with limits, the
//! rules of HTTP for intermediaries, an admin port, readiness and an orderly end.

pub mod access;
pub mod admin;
pub mod body;
pub mod config;
pub mod connect;
pub mod framing;
pub mod gather;
pub mod healthy;
pub mod hop;
pub mod listen;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod otlp;
pub mod own;
pub mod presence;
pub mod problem;
pub mod profile;
pub mod readiness;
pub mod reload;
pub mod request_id;
pub mod runtime;
pub mod shutdown;
pub mod tls;
pub mod tunnel;
pub mod upgrade;
pub mod upstream;

pub use body::{Body, BoxError};
