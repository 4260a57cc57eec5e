//! Configuration: a TOML file, then the environment, then `--set`, into one typed struct.
//!
//! A variable `PREFIX__EDGE__URL` and an argument `--set edge.url=...` both set the key `edge.url`.
//! The value is TOML; what is no TOML value is taken as a string.

mod reference;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use reference::{reference, uncommented};

/// Why a configuration is not usable.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file, or what was set over it, is not a configuration.
    Invalid {
        /// The file.
        file: PathBuf,
        /// Line and column from 1, where the fault stands in the file itself.
        place: Option<(usize, usize)>,
        /// What is wrong, with the key.
        message: String,
    },
    /// A key that was set from outside the file cannot be set.
    Key {
        /// The key.
        key: String,
        /// Why.
        message: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { file, source } => write!(f, "{}: {source}", file.display()),
            Self::Invalid {
                file,
                place: Some((line, column)),
                message,
            } => {
                write!(f, "{}:{line}:{column}: {message}", file.display())
            }
            Self::Invalid {
                file,
                place: None,
                message,
            } => {
                write!(
                    f,
                    "{}, with the environment and --set: {message}",
                    file.display()
                )
            }
            Self::Key { key, message } => write!(f, "{key}: {message}"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Reads a configuration. `sets` are the arguments of `--set`, each `key=value`.
///
/// # Errors
/// [`ConfigError`], with file, line and column where the fault stands in the file.
pub fn load<T: DeserializeOwned>(
    file: &Path,
    env_prefix: &str,
    sets: &[String],
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
        file: file.to_owned(),
        source,
    })?;
    let mut changes = Vec::new();
    let start = format!("{env_prefix}__");
    for (name, value) in std::env::vars() {
        if let Some(key) = name.strip_prefix(&start) {
            changes.push((key.to_lowercase().replace("__", "."), value));
        }
    }
    for set in sets {
        let (key, value) = set.split_once('=').ok_or_else(|| ConfigError::Key {
            key: set.clone(),
            message: "--set wants key=value".to_owned(),
        })?;
        changes.push((key.to_owned(), value.to_owned()));
    }
    parse(file, &text, &changes)
}

/// Reads a configuration from the text of a file, with `changes` over it, each a key and a value.
///
/// # Errors
/// [`ConfigError`], with line and column where the fault stands in the text.
pub fn parse<T: DeserializeOwned>(
    file: &Path,
    text: &str,
    changes: &[(String, String)],
) -> Result<T, ConfigError> {
    let mut table: Table = text.parse().map_err(|error| located(file, text, &error))?;
    if changes.is_empty() {
        return toml::from_str(text).map_err(|error| located(file, text, &error));
    }
    for (key, value) in changes {
        set(&mut table, key, value)?;
    }
    table.try_into().map_err(|error| {
        // A fault that the file has on its own can be pointed at.
        match toml::from_str::<T>(text) {
            Err(own) if own.message() == error.message() => located(file, text, &own),
            _ => ConfigError::Invalid {
                file: file.to_owned(),
                place: None,
                message: error.to_string().trim_end().replace('\n', " "),
            },
        }
    })
}

fn located(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = &text.as_bytes()[..at];
    let line = before.split(|&byte| byte == b'\n').count();
    let column = at
        - before
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |newline| newline + 1)
        + 1;
    let key = text
        .lines()
        .nth(line - 1)
        .and_then(|line| line.split_once('='))
        .map(|(key, _)| key.trim());
    let message = match key {
        Some(key) if !error.message().contains(&format!("`{key}`")) => {
            format!("{key}: {}", error.message())
        }
        _ => error.message().to_owned(),
    };
    ConfigError::Invalid {
        file: file.to_owned(),
        place: Some((line, column)),
        message,
    }
}

fn set(table: &mut Table, key: &str, value: &str) -> Result<(), ConfigError> {
    let mut at = table;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            let parsed = format!("value = {value}").parse::<Table>().ok();
            let parsed = parsed.and_then(|mut table| table.remove("value"));
            at.insert(
                part.to_owned(),
                parsed.unwrap_or_else(|| Value::String(value.to_owned())),
            );
            return Ok(());
        }
        let next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        at = next.as_table_mut().ok_or_else(|| ConfigError::Key {
            key: key.to_owned(),
            message: format!("{part} is not a table in the file"),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        listen: String,
        #[serde(default)]
        edge: Edge,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Edge {
        url: String,
        #[serde(default)]
        timeout_ms: u64,
    }

    const TEXT: &str = "listen = \"a\"\n\n[edge]\nurl = \"u\"\ntimeout_ms = 5\n";

    fn parsed(text: &str, changes: &[(&str, &str)]) -> Result<Sample, String> {
        let changes: Vec<_> = changes
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        parse(Path::new("x.toml"), text, &changes).map_err(|error| error.to_string())
    }

    #[test]
    fn changes_go_over_the_file() {
        let sample = parsed(
            TEXT,
            &[
                ("edge.timeout_ms", "7"),
                ("listen", "127.0.0.1:1"),
                ("edge.url", "\"v\""),
            ],
        );
        let edge = Edge {
            url: "v".into(),
            timeout_ms: 7,
        };
        assert_eq!(
            sample,
            Ok(Sample {
                listen: "127.0.0.1:1".into(),
                edge
            })
        );
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, changes, says) in [
            ("listen = \"a\"\nedge = {\n", &[][..], "x.toml:2:"),
            (
                "listen = \"a\"\n\n[edge]\nurl = 3\n",
                &[],
                "x.toml:4:7: url: invalid type",
            ),
            (
                "listen = \"a\"\n\n[edge]\nurl = 3\n",
                &[("listen", "b")],
                "x.toml:4:7: url: invalid type",
            ),
            (
                "listen = \"a\"\nlisten_too = 1\n",
                &[],
                "x.toml:2:1: unknown field `listen_too`",
            ),
            (
                TEXT,
                &[("edge.timeout_ms", "soon")],
                "with the environment and --set: invalid type: string \"soon\"",
            ),
            (
                TEXT,
                &[("listen.port", "1")],
                "listen.port: listen is not a table in the file",
            ),
        ] {
            let error = parsed(text, changes).unwrap_err();
            assert!(error.contains(says), "{error:?} should say {says:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load::<Sample>(Path::new("no/such.toml"), "X", &[])
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("no/such.toml: "), "{error}");
    }
}
