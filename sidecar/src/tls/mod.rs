//! TLS 1.3 between the sidecars: the edge shows a certificate, a device shows one as well where the
//! edge asks for it. Nothing older than 1.3 is spoken, and HTTP/2 is what is spoken inside (ALPN).

mod client;
mod explain;
mod files;
mod server;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

pub use client::{Client, ClientTls, Opened};
pub use files::{Expiry, expiry};
pub use server::{Accepted, Server, ServerTls};

/// The only protocol inside, by its ALPN name.
const H2: &[u8] = b"h2";

/// Why certificates and keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {reason}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file lacks what it is there for.
    #[error("{}: no {what} in it; it has to be PEM", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// What is looked for.
        what: &'static str,
    },
    /// Files that do not belong together, or that TLS does not take.
    #[error("{}: {reason}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Keys that exclude each other, or of which one is missing.
    #[error("{0}")]
    Keys(&'static str),
    /// The host is none that a certificate can be for.
    #[error("`{0}` is no name that a certificate can be for; set server_name")]
    Name(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;
