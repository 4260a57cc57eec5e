//! A private CA and the certificates that it signs.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use sidecod_wire::bundle::Digest;

/// How long a CA is good.
const LIFE: Duration = Duration::from_hours(10 * 365 * 24);
/// Certificates begin this much before they are made, for machines whose clock is late.
const LATE: Duration = Duration::from_hours(24);

/// A CA with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A new CA, and what it is to be kept as.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn create() -> Result<(Self, Signed), Error> {
        let key = KeyPair::generate()?;
        let signed = Signed {
            certificate: params(&key).self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        };
        Ok((Self::of(key), signed))
    }

    /// The CA of a key that was kept. Nothing else is needed: its name is made of the key.
    ///
    /// # Errors
    /// If it is no key.
    pub fn of_key(pem: &str) -> Result<Self, Error> {
        KeyPair::from_pem(pem).map(Self::of)
    }

    fn of(key: KeyPair) -> Self {
        Self {
            issuer: Issuer::new(params(&key), key),
        }
    }

    /// A certificate for an edge under these names or addresses.
    ///
    /// # Errors
    /// If one of them is no name.
    pub fn edge(&self, names: &[String], until: SystemTime) -> Result<Signed, Error> {
        let params = CertificateParams::new(names)?;
        let first = names.first().map_or("edge", String::as_str);
        self.sign(params, first, ExtendedKeyUsagePurpose::ServerAuth, until)
    }

    /// A certificate for a device.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn device(&self, name: &str, until: SystemTime) -> Result<Signed, Error> {
        let params = CertificateParams::default();
        self.sign(params, name, ExtendedKeyUsagePurpose::ClientAuth, until)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        until: SystemTime,
    ) -> Result<Signed, Error> {
        params.distinguished_name = common_name(name);
        params.not_before = (until.min(SystemTime::now()) - LATE).into();
        params.not_after = until.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Signed {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// What the certificate of a CA with this key says.
fn params(key: &KeyPair) -> CertificateParams {
    let short = Digest::of(key.public_key_raw()).to_string();
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Sidecod CA {}", &short[..16]));
    params.not_before = (SystemTime::now() - LATE).into();
    params.not_after = (SystemTime::now() + LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
