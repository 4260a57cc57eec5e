//! The programs that set rules.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::RedirectError;

/// Folders of such programs that need not be in a user's path.
const FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Whether a program is installed.
pub fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(Into::into));
    folders
        .into_iter()
        .any(|folder| folder.join(program).is_file())
}

/// Runs a command, given as one line, with `input`; an error if it fails.
pub fn run(line: &str, input: &str) -> Result<(), RedirectError> {
    let output = call(line, input)?;
    if output.status.success() {
        return Ok(());
    }
    Err(RedirectError::Failed {
        command: line.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Whether a command succeeds.
pub fn succeeds(line: &str) -> Result<bool, RedirectError> {
    Ok(call(line, "")?.status.success())
}

fn call(line: &str, input: &str) -> Result<Output, RedirectError> {
    let failed = |error: std::io::Error| RedirectError::Failed {
        command: line.to_owned(),
        said: error.to_string(),
    };
    let mut words = line.split_whitespace();
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(FOLDERS.join(":"));
    let mut child = Command::new(words.next().unwrap_or_default())
        .args(words)
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended says why below.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().map_err(failed)
}
