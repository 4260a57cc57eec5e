//! The device's end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{H2, TlsError, explain, files, provider};

/// Bytes that are read before the connection is handed over: more than the first frames of HTTP/2.
const FIRST: usize = 1 << 10;

/// Whom the device trusts, and what it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// One PEM file in place of `ca`, `certificate` and `key`, as `proxy-edge cert` writes it: this device's
    /// certificate, its key, and behind the key the CA that the edge's certificate is of.
    pub identity: Option<PathBuf>,
    /// PEM file of the CAs one of which must have signed the edge's certificate.
    pub ca: Option<PathBuf>,
    /// PEM file of this device's certificate, its intermediates behind it.
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub key: Option<PathBuf>,
    /// The name that the edge's certificate must be for; the host of the URL where none is given.
    pub server_name: Option<String>,
}

/// A connection to an edge that has admitted this device.
pub type Opened<I> = BufReader<TlsStream<I>>;

/// Connects to edges.
pub struct Client {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
    ca: PathBuf,
}

impl Client {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] that names the file, or the keys that do not go together.
    pub fn new(tls: &ClientTls) -> Result<Self, TlsError> {
        let Material { ca, roots, own } = material(tls)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| files::unusable(&ca, &error))?
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((file, chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| files::unusable(&file, &error))?,
        };
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name: tls.server_name.as_deref().map(name).transpose()?,
            ca,
        })
    }

    /// Does the handshake with the server of this name, and waits until it speaks: only then has it
    /// admitted this device, whose certificate comes last in TLS 1.3.
    ///
    /// # Errors
    /// What went wrong and what to do about it, for people.
    pub async fn open<I>(&self, host: &str, io: I) -> Result<Opened<I>, String>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => name(host).map_err(|error| error.to_string())?,
        };
        let explained = |error: std::io::Error| explain::to_device(&error, &self.ca);
        let stream = self.connector.connect(name, io).await.map_err(explained)?;
        let mut stream = BufReader::with_capacity(FIRST, stream);
        if stream.fill_buf().await.map_err(explained)?.is_empty() {
            return Err("the edge ended the connection after the TLS handshake".to_owned());
        }
        Ok(stream)
    }
}

/// What the keys of the configuration amount to.
struct Material {
    /// The file with the CAs, for messages.
    ca: PathBuf,
    roots: RootCertStore,
    own: Option<Own>,
}

/// The file of this device's certificate, the chain, and the key.
type Own = (
    PathBuf,
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
);

fn material(tls: &ClientTls) -> Result<Material, TlsError> {
    match (&tls.identity, &tls.ca, &tls.certificate, &tls.key) {
        (Some(file), None, None, None) => of_identity(file),
        (Some(_), ..) => Err(TlsError::Keys(
            "identity stands for ca, certificate and key: say it alone",
        )),
        (None, None, ..) => Err(TlsError::Keys(
            "say identity = \"device.pem\" (from proxy-edge cert), or ca = FILE; the system's CAs are often in /etc/ssl/certs/ca-certificates.crt",
        )),
        (None, Some(ca), certificate, key) => {
            let own = match (certificate, key) {
                (None, None) => None,
                (Some(certificate), Some(key)) => Some((
                    certificate.clone(),
                    files::chain(certificate)?,
                    files::key(key)?,
                )),
                _ => return Err(TlsError::Keys("certificate and key go together")),
            };
            Ok(Material {
                ca: ca.clone(),
                roots: files::roots(ca)?,
                own,
            })
        }
    }
}

fn of_identity(file: &Path) -> Result<Material, TlsError> {
    let sections = files::read(file)?;
    let key = sections
        .key
        .ok_or_else(|| files::missing(file, "private key"))?;
    if sections.before.is_empty() {
        return Err(files::missing(file, "certificate before the key"));
    }
    if sections.after.is_empty() {
        return Err(files::missing(file, "CA behind the key"));
    }
    Ok(Material {
        ca: file.to_owned(),
        roots: files::trust(file, sections.after)?,
        own: Some((file.to_owned(), sections.before, key)),
    })
}

fn name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))
}
