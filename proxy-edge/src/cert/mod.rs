//! `proxy-edge cert`: certificates for people without a PKI of their own.

mod authority;

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use sidecod_sidecar::tls::{self, TlsError};

pub use authority::{Authority, Signed};

/// The device that gets a file where none is named.
const FIRST_DEVICE: &str = "device";

/// Makes a private CA, the edge's certificate, and one file for each device.
#[derive(Debug, clap::Args)]
pub struct Cert {
    /// A name or address by which devices reach this edge; may be given several times.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// A device to make a file for; may be given several times. The first call makes one for
    /// `device`.
    #[arg(long = "device", value_name = "NAME")]
    devices: Vec<String>,
    /// Where the files are, the CA's among them.
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    folder: PathBuf,
    /// Days that the certificates are good.
    #[arg(long, default_value_t = 397, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Writes over what is there. The CA stays.
    #[arg(long)]
    renew: bool,
}

/// Why no certificates were made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// Nothing is asked for.
    #[error("say --name HOST, under which devices reach this edge, or --device NAME")]
    Nothing,
    /// There is no CA yet, and no name for an edge.
    #[error("{} has no CA yet: say --name HOST as well", .0.display())]
    NoAuthority(PathBuf),
    /// A device's name is no file name.
    #[error("`{0}`: a device's name has letters, digits, - and _, and is not ca or edge")]
    DeviceName(String),
    /// A file would be lost.
    #[error("{} is there already; --renew writes over it", .0.display())]
    Exists(PathBuf),
    /// The system does not do what is asked of it.
    #[error("{}: {source}", file.display())]
    System {
        /// The file.
        file: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A name is none, or a key is none.
    #[error("{what}: {source}")]
    Sign {
        /// What was to be signed.
        what: String,
        /// Why it was not.
        source: rcgen::Error,
    },
    /// What was written cannot be read.
    #[error(transparent)]
    Read(#[from] TlsError),
}

impl Cert {
    /// Makes the files, and says what was made and what to do with it.
    ///
    /// # Errors
    /// [`CertError`]. Nothing is written over unless `--renew` says so.
    pub fn run(&self) -> Result<String, CertError> {
        if self.names.is_empty() && self.devices.is_empty() {
            return Err(CertError::Nothing);
        }
        let (ca, ca_key) = (self.file("ca.pem"), self.file("ca.key"));
        let first = !ca_key.exists();
        if first && self.names.is_empty() {
            return Err(CertError::NoAuthority(self.folder.clone()));
        }
        let mut devices = self.devices.clone();
        if first && devices.is_empty() {
            devices.push(FIRST_DEVICE.to_owned());
        }
        self.check(&devices)?;

        let authority = if first {
            let mut folder = fs::DirBuilder::new();
            let made = folder.recursive(true).mode(0o700).create(&self.folder);
            made.map_err(system(&self.folder))?;
            let (authority, signed) = Authority::create().map_err(sign("the CA"))?;
            write(&ca_key, &signed.key)?;
            write(&ca, &signed.certificate)?;
            authority
        } else {
            let key = fs::read_to_string(&ca_key).map_err(system(&ca_key))?;
            Authority::of_key(&key).map_err(sign(&ca_key.display().to_string()))?
        };
        let ca_text = fs::read_to_string(&ca).map_err(system(&ca))?;
        let until = SystemTime::now() + Duration::from_hours(24 * u64::from(self.days));
        if !self.names.is_empty() {
            let signed = authority
                .edge(&self.names, until)
                .map_err(sign(&self.names.join(", ")))?;
            write(&self.file("edge.key"), &signed.key)?;
            write(&self.file("edge.pem"), &signed.certificate)?;
        }
        for name in &devices {
            let signed = authority.device(name, until).map_err(sign(name))?;
            let text = [&signed.certificate[..], &signed.key, &ca_text].concat();
            write(&self.device_file(name), &text)?;
        }
        self.describe(&devices)
    }

    /// Everything that can be wrong is found before anything is written.
    fn check(&self, devices: &[String]) -> Result<(), CertError> {
        for name in devices {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if name.is_empty() || !name.bytes().all(good) || name == "ca" || name == "edge" {
                return Err(CertError::DeviceName(name.clone()));
            }
        }
        let mut written: Vec<_> = devices.iter().map(|name| self.device_file(name)).collect();
        if !self.names.is_empty() {
            written.extend([self.file("edge.pem"), self.file("edge.key")]);
        }
        match written.into_iter().find(|file| file.exists()) {
            Some(file) if !self.renew => Err(CertError::Exists(file)),
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn device_file(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.pem"))
    }

    /// What there is now, until when, and what to put where.
    #[allow(clippy::unnecessary_debug_formatting)] // TOML quotes and escapes strings as Debug does
    fn describe(&self, devices: &[String]) -> Result<String, CertError> {
        let mut text = String::new();
        let mut say = |file: &Path, what: &str| -> Result<(), CertError> {
            let until = tls::expiry(file)?;
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}: {what}, good until {until}", file.display());
            Ok(())
        };
        let (ca, edge) = (self.file("ca.pem"), self.file("edge.pem"));
        say(
            &ca,
            "the CA (whoever has its key, ca.key, can make devices)",
        )?;
        if !self.names.is_empty() {
            let what = format!("the certificate of this edge for {}", self.names.join(", "));
            say(&edge, &what)?;
        }
        for name in devices {
            let what = "copy this one file to the device, over a way that nobody else reads";
            say(&self.device_file(name), what)?;
        }
        if let Some(host) = self.names.first() {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            let device = devices.first().map_or(FIRST_DEVICE, String::as_str);
            let _ = write!(
                text,
                "\nproxy-edge.toml, in place of plaintext = true:\n\
                 \x20   [tls]\n\
                 \x20   certificate = {edge:?}\n\
                 \x20   key = {key:?}\n\
                 \x20   client_ca = {ca:?}\n\
                 \nproxy-device.toml, in place of plaintext = true:\n\
                 \x20   [edge]\n\
                 \x20   url = \"https://{host}:7100\"\n\
                 \x20   [edge.tls]\n\
                 \x20   identity = \"{device}.pem\"\n",
                key = self.file("edge.key"),
            );
        }
        let _ = writeln!(
            text,
            "\nBefore they end, say the same with --renew and copy the devices' files again."
        );
        Ok(text)
    }
}

/// Writes a file that only its owner may read, whole or not at all.
fn write(file: &Path, text: &str) -> Result<(), CertError> {
    let new = file.with_extension("new");
    let written = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let mut output = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        output.write_all(text.as_bytes())?;
        output.sync_all()?;
        fs::rename(&new, file)
    };
    written().map_err(system(file))
}

fn system(file: &Path) -> impl FnOnce(io::Error) -> CertError {
    let file = file.to_owned();
    |source| CertError::System { file, source }
}

fn sign(what: &str) -> impl FnOnce(rcgen::Error) -> CertError {
    let what = what.to_owned();
    |source| CertError::Sign { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use sidecod_sidecar::tls::{Client, ClientTls, Server, ServerTls};
    use std::os::unix::fs::PermissionsExt;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        cert: Cert,
    }

    fn run(folder: &Path, arguments: &[&str]) -> Result<String, CertError> {
        let folder = folder.join("certs").display().to_string();
        let all = ["cert", "--folder", &folder].into_iter();
        Line::parse_from(all.chain(arguments.iter().copied()))
            .cert
            .run()
    }

    #[test]
    fn one_command_makes_all_that_both_sidecars_need() {
        let folder = tempfile::tempdir().unwrap();
        let said = run(folder.path(), &["--name", "edge.lan", "--name", "10.0.0.5"]).unwrap();
        for part in [
            "edge.lan, 10.0.0.5",
            "good until ",
            "url = \"https://edge.lan:7100\"",
        ] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
        let file = |name: &str| folder.path().join("certs").join(name);
        for name in ["ca.pem", "ca.key", "edge.pem", "edge.key", "device.pem"] {
            let mode = fs::metadata(file(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let server = ServerTls {
            certificate: file("edge.pem"),
            key: file("edge.key"),
            client_ca: Some(file("ca.pem")),
        };
        assert!(Server::new(&server).is_ok());
        let client = ClientTls {
            identity: Some(file("device.pem")),
            ..ClientTls::default()
        };
        assert!(Client::new(&client).is_ok());
    }

    #[test]
    fn nothing_is_written_over_by_accident_and_the_ca_never() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| fs::read(folder.path().join("certs").join(name)).unwrap();
        assert!(matches!(
            run(folder.path(), &["--device", "a"]),
            Err(CertError::NoAuthority(_))
        ));
        assert!(matches!(
            run(folder.path(), &["--name", "edge", "--device", "../a"]),
            Err(CertError::DeviceName(_))
        ));
        assert!(!folder.path().join("certs").exists());
        run(folder.path(), &["--name", "edge"]).unwrap();
        let (ca, edge) = (file("ca.pem"), file("edge.pem"));
        assert!(matches!(
            run(folder.path(), &["--name", "edge"]),
            Err(CertError::Exists(_))
        ));
        assert_eq!(edge, file("edge.pem"));
        run(folder.path(), &["--renew", "--name", "edge"]).unwrap();
        assert_ne!(edge, file("edge.pem"));
        run(folder.path(), &["--device", "camera-2"]).unwrap();
        assert!(file("camera-2.pem").ends_with(&ca));
        assert_eq!(ca, file("ca.pem"));
    }
}
