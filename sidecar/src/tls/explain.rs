//! What a failed handshake means, and what to do about it.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// For whoever looks at the device's log. `ca` is the file of the CAs that the device trusts.
pub(super) fn to_device(error: &io::Error, ca: &Path) -> String {
    let Some(tls) = of(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                "the edge ended the connection during the TLS handshake".to_owned()
            }
            _ => error.to_string(),
        };
    };
    match tls {
        Error::InvalidCertificate(fault) => match fault {
            CertificateError::ExpiredContext { time, not_after } => format!(
                "the edge's certificate has expired on {}: renew it there (proxy-edge cert --renew), unless the clock here is wrong: it says {}",
                date(*not_after),
                date(*time)
            ),
            CertificateError::NotValidYetContext { time, not_before } => format!(
                "the edge's certificate is not good before {}, and the clock here says {}: one of the two clocks is wrong",
                date(*not_before),
                date(*time)
            ),
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "the edge's certificate is for {}, not for {name}: use one of its names in edge.url, say edge.tls.server_name, or make one with proxy-edge cert --name {name}",
                plain(presented),
                name = expected.to_str()
            ),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "the edge's certificate is of no CA in {}: copy the file that proxy-edge cert has written for this device, or the right CA",
                ca.display()
            ),
            other => format!("the edge's certificate: {other}"),
        },
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "the edge asks for a client certificate: say edge.tls.identity, the file that proxy-edge cert has written for this device".to_owned()
            }
            AlertDescription::CertificateExpired => {
                "the edge says that this device's certificate has expired, or is not good yet: make a new one there (proxy-edge cert --renew --device NAME) and copy it here, unless a clock is wrong".to_owned()
            }
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                "the edge does not know the CA of this device's certificate: copy the file that proxy-edge cert has written for this device there".to_owned()
            }
            AlertDescription::NoApplicationProtocol => {
                "what listens there speaks TLS, but no HTTP/2: it is no proxy-edge".to_owned()
            }
            AlertDescription::ProtocolVersion => {
                "what listens there speaks no TLS 1.3: it is no proxy-edge".to_owned()
            }
            other => format!("the edge refused the TLS handshake: {other:?}"),
        },
        Error::InvalidMessage(_) => {
            "what listens there does not speak TLS: is edge.url right, or does the edge say plaintext = true?".to_owned()
        }
        other => other.to_string(),
    }
}

/// For whoever looks at the edge's log.
pub(super) fn to_edge(error: &io::Error) -> String {
    let Some(tls) = of(error) else {
        return error.to_string();
    };
    match tls {
        Error::NoCertificatesPresented => {
            "it showed no certificate: give it edge.tls.identity, a file of proxy-edge cert".to_owned()
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => format!(
            "its certificate has expired on {}: proxy-edge cert --renew --device NAME makes a new one",
            date(*not_after)
        ),
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is of no CA in tls.client_ca".to_owned()
        }
        Error::InvalidCertificate(other) => format!("its certificate: {other}"),
        Error::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::DecryptError,
        ) => "it does not accept the certificate of this edge: its CA is another, or the name".to_owned(),
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "it says that the certificate of this edge has expired: proxy-edge cert --renew makes a new one".to_owned()
        }
        Error::InvalidMessage(_) => "it does not speak TLS: its edge.url must be https".to_owned(),
        other => other.to_string(),
    }
}

/// Names as they stand in a URL: the library gives `DnsName("a")` and `IpAddress(1.2.3.4)`.
fn plain(presented: &[String]) -> String {
    let inner = presented.iter().map(|name| {
        let name = name.split_once('(').map_or(&name[..], |(_, rest)| rest);
        name.trim_end_matches(')').trim_matches('"')
    });
    inner.collect::<Vec<_>>().join(", ")
}

fn of(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn date(time: UnixTime) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(time.as_secs());
    httpdate::fmt_http_date(time)
}
