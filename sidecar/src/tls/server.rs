//! The edge's end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{H2, TlsError, explain, files, provider};

/// Time that a device gets for its part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The edge's certificate, and whose devices are admitted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file of the certificate, its intermediates behind it.
    #[schemars(example = "edge.pem")]
    pub certificate: PathBuf,
    /// PEM file of its private key.
    #[schemars(example = "edge.key")]
    pub key: PathBuf,
    /// PEM file of the CAs one of which must have signed a device's certificate; without it devices
    /// need none.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// A connection whose device is known.
pub type Accepted = TlsStream<TcpStream>;

/// Accepts devices. Certificates can be changed while it does.
pub struct Server(ArcSwap<ServerConfig>);

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] that names the file.
    pub fn new(tls: &ServerTls) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::from_pointee(config(tls)?)))
    }

    /// Reads the files anew, for the connections to come.
    ///
    /// # Errors
    /// [`TlsError`]; then the certificates stay what they were.
    pub fn reload(&self, tls: &ServerTls) -> Result<(), TlsError> {
        self.0.store(Arc::new(config(tls)?));
        Ok(())
    }

    /// Does the handshake.
    ///
    /// # Errors
    /// What went wrong and what to do about it, for people.
    pub async fn accept(&self, stream: TcpStream) -> Result<Accepted, String> {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(accepted) => accepted.map_err(|error| explain::to_edge(&error)),
            Err(_) => Err(format!("no TLS handshake within {HANDSHAKE:?}")),
        }
    }
}

fn config(tls: &ServerTls) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| files::unusable(&tls.certificate, &error))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(files::roots(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = verifier.build();
            builder
                .with_client_cert_verifier(verifier.map_err(|error| files::unusable(file, &error))?)
        }
    };
    let (chain, key) = (files::chain(&tls.certificate)?, files::key(&tls.key)?);
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| files::unusable(&tls.key, &error))?;
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(config)
}
