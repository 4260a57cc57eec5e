//! `wrk`: as many requests as the other side answers, over a number of connections.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

/// What `wrk` runs: posts a body, and prints one line that can be read.
const SCRIPT: &str = r#"
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
function init(args) wrk.body = string.rep("x", tonumber(args[1])) end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"#;

/// A load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) body: usize,
    pub(super) connections: usize,
    pub(super) seconds: u32,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) requests: u64,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) errors: u64,
}

impl Load {
    pub(super) async fn run(self, url: &str) -> Result<Outcome> {
        let mut script = tempfile::Builder::new().suffix(".lua").tempfile()?;
        std::io::Write::write_all(&mut script, SCRIPT.as_bytes())?;
        let output = Command::new("wrk")
            .args(["-t", "1", "-c", &self.connections.to_string()])
            .args(["-d", &format!("{}s", self.seconds)])
            .arg("-s")
            .arg(script.path())
            .args([url, "--", &self.body.to_string()])
            .stdin(Stdio::null())
            .output()
            .await
            .context("wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "wrk ended with {}: {text}",
            output.status
        );
        let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let line = line.with_context(|| format!("wrk has printed no result: {text}"))?;
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [requests, microseconds, errors, p50, p99] = numbers[..] else {
            bail!("wrk has printed {line}");
        };
        Ok(Outcome {
            requests,
            per_second: requests as f64 / (microseconds as f64 / 1e6),
            p50_ms: p50 as f64 / 1e3,
            p99_ms: p99 as f64 / 1e3,
            errors,
        })
    }
}
