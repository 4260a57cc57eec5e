//! Logs on standard error. Nothing of a body, no query and no credential is ever in them.

use std::io::IsTerminal as _;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is logged, and how. The variable `RUST_LOG` goes over `filter`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level, or levels for parts: `info`, `warn,sidecod_device::link=debug`.
    pub filter: String,
    /// How lines look.
    pub format: Format,
    /// The level of the one line for each request; none where it is `off`. It is shown where
    /// `filter` shows that level.
    #[serde(deserialize_with = "level")]
    #[schemars(with = "String", extend("default" = "off"))]
    pub access: Option<Level>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: Format::Text,
            access: None,
        }
    }
}

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One line each, for people.
    #[default]
    Text,
    /// Several lines each, for people who look for a fault.
    Pretty,
    /// One JSON object each, for programs.
    Json,
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Level>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match &text[..] {
        "off" => Ok(None),
        "error" | "warn" | "info" | "debug" | "trace" => {
            text.parse().map(Some).map_err(D::Error::custom)
        }
        _ => Err(D::Error::custom(format!(
            "access: `{text}` is none of off, error, warn, info, debug, trace"
        ))),
    }
}

/// Starts logging.
///
/// # Errors
/// If `filter` or `RUST_LOG` is no filter.
pub fn start(log: &Log) -> Result<(), String> {
    let text = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let name = if text.is_some() {
        "RUST_LOG"
    } else {
        "log.filter"
    };
    let text = text.unwrap_or_else(|| log.filter.clone());
    let filter = EnvFilter::try_new(&text).map_err(|error| format!("{name}: `{text}`: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match log.format {
        Format::Text => lines.finish().try_init(),
        Format::Pretty => lines.pretty().finish().try_init(),
        Format::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_the_access_line() {
        let read = |text: &str| toml::from_str::<Log>(text);
        assert_eq!(read("").unwrap().access, None);
        assert_eq!(read("access = \"off\"").unwrap().access, None);
        let log = read("access = \"debug\"\nformat = \"json\"").unwrap();
        assert_eq!((log.access, log.format), (Some(Level::DEBUG), Format::Json));
        let error = read("access = \"loud\"").unwrap_err().to_string();
        assert!(error.contains("`loud` is none of off, error"), "{error}");
    }
}
