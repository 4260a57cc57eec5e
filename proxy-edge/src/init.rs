//! `proxy-edge init`: a first configuration that works.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sidecod_sidecar::config::ConfigError;
use sidecod_sidecar::tls::{Server, TlsError};

use crate::bundles::{self, StoreError};
use crate::config::Config;

/// Writes a first configuration.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The model server, such as <http://127.0.0.1:8500>.
    url: String,
    /// Folder of a codec bundle that is decoded; may be given several times.
    #[arg(long = "bundle", value_name = "FOLDER", required = true)]
    bundles: Vec<PathBuf>,
    /// Folder of certificates, as `proxy-edge cert` makes it.
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    certs: PathBuf,
    /// Nothing on the link is to be encrypted; it then listens on loopback alone.
    #[arg(long)]
    plaintext: bool,
}

/// Why no configuration was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A configuration would be lost.
    #[error("{} is there already, and is left as it is; --config names another", .0.display())]
    Exists(PathBuf),
    /// There are no certificates.
    #[error("{0}; proxy-edge cert --name HOST makes certificates, --plaintext does without")]
    Tls(#[from] TlsError),
    /// What was written is not good.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A bundle is not good.
    #[error(transparent)]
    Bundle(#[from] StoreError),
    /// The file cannot be written.
    #[error("{}: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Init {
    /// Writes `file` and says what it is for.
    ///
    /// # Errors
    /// [`InitError`]. A file that is there is never written over.
    pub fn run(&self, file: &Path) -> Result<String, InitError> {
        if file.exists() {
            return Err(InitError::Exists(file.to_owned()));
        }
        let text = self.text();
        let config = Config::parse(file, &text)?;
        if let Some(tls) = &config.tls {
            Server::new(tls)?;
        }
        bundles::read_all(&config.bundles)?;
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .and_then(|mut output| output.write_all(text.as_bytes()))
            .map_err(|source| InitError::Write {
                file: file.to_owned(),
                source,
            })?;
        Ok(format!(
            "wrote {name}; proxy-edge --config {name} starts it, and then, on a device:\n\
             proxy-device init {}\n",
            if self.plaintext {
                "http://127.0.0.1:7100 --plaintext"
            } else {
                "https://HOST:7100 --identity device.pem"
            },
            name = file.display()
        ))
    }

    fn text(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let path = |path: &Path| quoted(&path.display().to_string());
        let bundles: Vec<_> = self.bundles.iter().map(|folder| path(folder)).collect();
        let mut text = String::from(
            "# proxy-edge, beside the model server. Every key: docs/configuration.md.\n\n",
        );
        let listen = if self.plaintext {
            "127.0.0.1:7100"
        } else {
            "[::]:7100"
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "listen = \"{listen}\" # where devices connect\n\
             admin = \"127.0.0.1:7101\" # /metrics, /live, /ready\n\
             bundles = [{}]\n",
            bundles.join(", ")
        );
        if self.plaintext {
            text.push_str("plaintext = true # nothing on the link is encrypted\n");
        } else {
            let file = |name: &str| path(&self.certs.join(name));
            let _ = write!(
                text,
                "\n[tls]\ncertificate = {}\nkey = {}\nclient_ca = {} # only its devices are admitted\n",
                file("edge.pem"),
                file("edge.key"),
                file("ca.pem")
            );
        }
        let _ = write!(
            text,
            "\n# The only servers that this edge ever calls.\n\
             [[upstream]]\nname = \"default\"\nurl = {}\n",
            quoted(&self.url)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        init: Init,
    }

    fn run(folder: &Path, more: &[&str]) -> Result<String, String> {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/codecs/photo-v0");
        let bundle = bundle.display().to_string();
        let certs = folder.join("certs").display().to_string();
        let all = ["init", "http://m:1", "--bundle", &bundle, "--certs", &certs].into_iter();
        let line = Line::parse_from(all.chain(more.iter().copied()));
        line.init
            .run(&folder.join("edge.toml"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_configuration_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(folder.path(), &[]).unwrap_err();
        assert!(
            error.contains("proxy-edge cert --name HOST makes certificates"),
            "{error}"
        );
        assert!(!folder.path().join("edge.toml").exists());
        run(folder.path(), &["--plaintext"]).unwrap();
        let config = Config::load(&folder.path().join("edge.toml"), &[]).unwrap();
        assert!(config.plaintext && config.listen.ip().is_loopback());
        let error = run(folder.path(), &["--plaintext"]).unwrap_err();
        assert!(error.contains("is there already"), "{error}");
    }
}
