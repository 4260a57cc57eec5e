//! Certificates and keys in PEM files.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use super::TlsError;

/// A certificate and key are far smaller.
const MAX_FILE: u64 = 1 << 20;
/// A certificate that ends sooner is worth a warning.
const SOON: Duration = Duration::from_hours(30 * 24);

/// What stands in one file: certificates before the key, the key, certificates after it.
pub(super) struct Sections {
    pub(super) before: Vec<CertificateDer<'static>>,
    pub(super) key: Option<PrivateKeyDer<'static>>,
    pub(super) after: Vec<CertificateDer<'static>>,
}

pub(super) fn read(file: &Path) -> Result<Sections, TlsError> {
    let unreadable = |reason: String| TlsError::Read {
        file: file.to_owned(),
        reason,
    };
    let size = std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?;
    if size.len() > MAX_FILE {
        return Err(unreadable(format!("has more than {MAX_FILE} bytes")));
    }
    let text = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
    let mut sections = Sections {
        before: Vec::new(),
        key: None,
        after: Vec::new(),
    };
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&text) {
        let (kind, der) = section.map_err(|error| unreadable(format!("bad PEM: {error:?}")))?;
        match kind {
            SectionKind::Certificate if sections.key.is_none() => sections.before.push(der.into()),
            SectionKind::Certificate => sections.after.push(der.into()),
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                let key = PrivateKeyDer::from_pem(kind, der);
                if sections.key.is_none() {
                    sections.key = key;
                }
            }
            _ => {}
        }
    }
    Ok(sections)
}

/// A certificate with the intermediates behind it.
pub(super) fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = read(file)?.before;
    if found.is_empty() {
        return Err(missing(file, "certificate"));
    }
    Ok(found)
}

pub(super) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    read(file)?.key.ok_or_else(|| missing(file, "private key"))
}

/// The CAs of a file.
pub(super) fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    trust(file, chain(file)?)
}

/// These certificates as CAs.
pub(super) fn trust(
    file: &Path,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| unusable(file, &error))?;
    }
    Ok(roots)
}

pub(super) fn missing(file: &Path, what: &'static str) -> TlsError {
    TlsError::Missing {
        file: file.to_owned(),
        what,
    }
}

pub(super) fn unusable(file: &Path, error: &impl std::fmt::Display) -> TlsError {
    TlsError::Unusable {
        file: file.to_owned(),
        reason: error.to_string(),
    }
}

/// When the first certificate of a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry(SystemTime);

impl Expiry {
    /// The moment.
    #[must_use]
    pub fn at(self) -> SystemTime {
        self.0
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn unix(self) -> u64 {
        self.0
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    /// Whether it lies within thirty days, or in the past.
    #[must_use]
    pub fn is_near(self) -> bool {
        self.0 < SystemTime::now() + SOON
    }
}

impl std::fmt::Display for Expiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&httpdate::fmt_http_date(self.0))
    }
}

/// Until when the first certificate of a file is good.
///
/// # Errors
/// [`TlsError`] if there is none in it.
pub fn expiry(file: &Path) -> Result<Expiry, TlsError> {
    let certificates = chain(file)?;
    let parsed = ParsedCertificate::try_from(&certificates[0]);
    let parsed = parsed.map_err(|error| unusable(file, &error))?;
    // Whoever verifies a certificate in the far future is told when it has ended; the validity is
    // looked at before anything else.
    let never = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX >> 8));
    let verdict = verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &RootCertStore::empty(),
        &[],
        never,
        super::provider().signature_verification_algorithms.all,
    );
    match verdict {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => Ok(
            Expiry(UNIX_EPOCH + Duration::from_secs(not_after.as_secs())),
        ),
        other => Err(unusable(
            file,
            &format!("when it ends cannot be told: {other:?}"),
        )),
    }
}
