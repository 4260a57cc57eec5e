//! `proxy-device init URL`: a first configuration that works, from what the edge says of itself.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sidecod_sidecar::own::Own;
use sidecod_wire::describe::Description;

use crate::bundle::{choose, describe};
use crate::config::Config;
use crate::link::Link;

/// Time that the edge gets to say what it is.
const LIMIT: Duration = Duration::from_secs(20);

/// Asks an edge what it serves, and writes a first configuration for it.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The edge's URL, such as <https://edge.lan:7100>.
    url: String,
    /// The file that `proxy-edge cert` has written for this device.
    #[arg(long, value_name = "FILE", conflicts_with = "ca")]
    identity: Option<PathBuf>,
    /// The CA that the edge's certificate is of, where a token admits this device.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// What admits this device to the edge, besides or in place of a certificate.
    #[arg(long, env = "SIDECOD_DEVICE__EDGE__TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Nothing on the link is to be encrypted; for an http URL.
    #[arg(long)]
    plaintext: bool,
    /// The model server itself, for when the edge cannot be reached.
    #[arg(long, value_name = "URL")]
    direct: Option<String>,
    /// Which of the edge's model servers apps get; the only one, or `default`, where none is named.
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
}

impl Init {
    /// Writes `file`, and says what was found.
    ///
    /// # Errors
    /// If the file is there already, if the edge cannot be asked, or if what is given does not go
    /// together.
    pub async fn run(&self, file: &Path) -> Result<String> {
        ensure!(
            !file.exists(),
            "{} is there already, and is left as it is; --config names another",
            file.display()
        );
        let text = self.text(None);
        let config = Config::parse(file, &text)?;
        let link = Link::new(&config.edge, Own::default()).context("edge")?;
        let asked = tokio::time::timeout(LIMIT, describe(&link)).await;
        let description = asked.context("the edge does not answer")??;

        let text = self.text(Some((&description, self.upstream(&description)?)));
        Config::parse(file, &text)?;
        let mut options = OpenOptions::new();
        let mut output = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .with_context(|| file.display().to_string())?;
        output
            .write_all(text.as_bytes())
            .with_context(|| file.display().to_string())?;
        let mut said = format!("proxy-edge {} at {}\n", description.version, self.url);
        for offer in &description.bundles {
            let qualities = offer.qualities.join(", ");
            let _ = writeln!(
                said,
                "codec {} {}: qualities {qualities}",
                offer.name, offer.version
            );
        }
        let _ = writeln!(said, "model servers: {}", description.upstreams.join(", "));
        let _ = writeln!(
            said,
            "wrote {name}; proxy-device --config {name} starts it",
            name = file.display()
        );
        Ok(said)
    }

    fn upstream<'d>(&'d self, description: &'d Description) -> Result<&'d str> {
        let known = &description.upstreams;
        let wanted = match (&self.upstream, &known[..]) {
            (Some(name), _) => name,
            (None, [only]) => only,
            (None, _) => "default",
        };
        if !known.iter().any(|name| name == wanted) {
            bail!(
                "the edge has no model server named {wanted}, but {}; choose with --upstream",
                known.join(", ")
            );
        }
        Ok(wanted)
    }

    fn text(&self, learned: Option<(&Description, &str)>) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let path = |path: &Path| quoted(&path.display().to_string());
        let mut text = String::from(
            "# proxy-device, beside the app. Every key: docs/configuration.md.\n\n\
             admin = \"127.0.0.1:7001\"     # /metrics, /live, /ready\n",
        );
        // Writing to a string does not fail.
        let mut line = |line: String| {
            let _ = writeln!(text, "{line}");
        };
        line("# The model server itself, for when the edge cannot be reached.".to_owned());
        line(match &self.direct {
            Some(url) => format!("direct = {}", quoted(url)),
            None => "# direct = \"http://model.lan:8500\"".to_owned(),
        });
        line("\n[listen]\nreverse = [\"127.0.0.1:7000\"] # the app's new base URL".to_owned());
        line(format!("\n[edge]\nurl = {}", quoted(&self.url)));
        if let Some((description, upstream)) = learned {
            let all = description.upstreams.join(", ");
            line(format!(
                "upstream = {} # the edge has: {all}",
                quoted(upstream)
            ));
        }
        if let Some(token) = &self.token {
            line(format!("token = {}", quoted(token)));
        }
        if self.plaintext {
            line("plaintext = true # nothing on this link is encrypted".to_owned());
        }
        if let Some(identity) = &self.identity {
            line("\n[edge.tls]".to_owned());
            line(format!(
                "identity = {} # certificate, key and CA",
                path(identity)
            ));
        } else if let Some(ca) = &self.ca {
            line(format!("\n[edge.tls]\nca = {}", path(ca)));
        }
        line("\n# Requests whose photos cross as codes; all others pass through as they are.\n[[route]]".to_owned());
        line("name = \"photos\"\npath = \"/**\" # any; better the path of the model".to_owned());
        line(
            "content_type = [\"image/*\", \"multipart/form-data\", \"application/json\"]"
                .to_owned(),
        );
        if let Some((description, _)) = learned
            && let Ok(offer) = choose(description, None)
            && let Some(first) = offer.qualities.first()
        {
            let all = offer.qualities.join(", ");
            line(format!(
                "# quality = {} # of {all} of the edge's codec {}",
                quoted(first),
                offer.name
            ));
        }
        line("# max_side = 640 # where the model reduces photos to that anyway".to_owned());
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

    fn init(arguments: &[&str]) -> Init {
        let all = ["init"].into_iter().chain(arguments.iter().copied());
        Line::parse_from(all).init
    }

    #[test]
    fn what_is_written_is_a_good_configuration() {
        let description: Description = serde_json::from_str(
            r#"{"version":"1","upstreams":["a","b"],"bundles":[{"name":"photo","version":"2","domain":"image","digest":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","qualities":["q1","q2"]}]}"#,
        )
        .unwrap();
        let arguments = [
            "https://edge:1",
            "--identity",
            "a \"b\".pem",
            "--direct",
            "http://m:1",
        ];
        let text = init(&arguments).text(Some((&description, "a")));
        let config = Config::parse(Path::new("d.toml"), &text).unwrap();
        assert!(config.edge.url.first().is_https() && config.direct.is_some());
        let identity = config.edge.tls.unwrap().identity.unwrap();
        assert_eq!(identity, Path::new("a \"b\".pem"));
        assert_eq!((&config.edge.upstream[..], config.routes.len()), ("a", 1));
        assert!(text.contains("# quality = \"q1\" # of q1, q2"), "{text}");

        let text = init(&["http://edge:1", "--plaintext", "--token", "x"]).text(None);
        assert!(
            Config::parse(Path::new("d.toml"), &text)
                .unwrap()
                .edge
                .plaintext
        );
    }

    #[test]
    fn one_of_several_model_servers_is_named() {
        let known = |names: &[&str]| Description {
            version: String::new(),
            bundles: Vec::new(),
            upstreams: names.iter().map(ToString::to_string).collect(),
        };
        let plain = init(&["http://edge:1"]);
        assert_eq!(plain.upstream(&known(&["only"])).unwrap(), "only");
        assert_eq!(
            plain.upstream(&known(&["a", "default"])).unwrap(),
            "default"
        );
        let error = plain.upstream(&known(&["a", "b"])).unwrap_err().to_string();
        assert!(
            error.contains("but a, b; choose with --upstream"),
            "{error}"
        );
        let named = init(&["http://edge:1", "--upstream", "b"]);
        assert_eq!(named.upstream(&known(&["a", "b"])).unwrap(), "b");
    }
}
