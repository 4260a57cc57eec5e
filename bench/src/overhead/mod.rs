//! What passing through both sidecars costs, beside chains of two well-known proxies, in one run.
//!
//! Nothing is coded here: requests match no route and stream through. Every chain ends at the same
//! nginx, which answers 64 bytes; `wrk` sends. All of them share this machine's cores.

mod chain;
mod load;
mod usage;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use chain::Chain;
use load::Load;

/// Connections that `wrk` keeps open.
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// Bytes of the bodies that it posts.
const BODIES: [usize; 2] = [64, 100 << 10];

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Seconds of each measurement.
    pub seconds: u32,
    /// Measurements of each kind; the median counts.
    pub rounds: usize,
}

/// What one chain did under one load.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Name of the chain.
    pub chain: String,
    /// Bytes of each body.
    pub body: usize,
    /// Connections.
    pub connections: usize,
    /// Requests answered in a second.
    pub per_second: f64,
    /// The same, as a ratio to the chain of two nginx.
    pub to_nginx: f64,
    /// Median milliseconds until the answer.
    pub p50_ms: f64,
    /// 99th percentile of them.
    pub p99_ms: f64,
    /// Seconds of a core that the proxies took for a thousand requests.
    pub cpu_per_thousand: f64,
    /// Peak of their memory so far, in MiB; the edge's libtorch counts.
    pub memory_mib: f64,
    /// Requests without an answer of status 200.
    pub errors: u64,
}

/// Measures every chain under every load.
///
/// # Errors
/// If nginx, haproxy or wrk is not installed, or a chain does not start.
pub async fn measure(options: Options) -> Result<Vec<Row>> {
    let chains = chain::all().await?;
    let steps = BODIES.len() * CONNECTIONS.len() * options.rounds * chains.len();
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {msg} ({eta} left)",
    )?);
    let mut rows = Vec::new();
    for body in BODIES {
        for connections in CONNECTIONS {
            let load = Load {
                body,
                connections,
                seconds: options.seconds,
            };
            let mut runs: Vec<Vec<Row>> = vec![Vec::new(); chains.len()];
            // Chains take turns, so that what else the machine does hits all of them.
            for _ in 0..options.rounds {
                for (chain, runs) in chains.iter().zip(&mut runs) {
                    bar.set_message(format!("{}, {body} B, {connections}", chain.name));
                    runs.push(one(chain, load).await?);
                    bar.inc(1);
                }
            }
            let medians = runs.into_iter().map(median);
            let mut medians = medians.collect::<Result<Vec<_>>>()?;
            let nginx = medians.iter().find(|row| row.chain == chain::NGINX);
            let nginx = nginx.context("the chain of two nginx")?.per_second;
            for row in &mut medians {
                row.to_nginx = row.per_second / nginx;
            }
            rows.append(&mut medians);
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

async fn one(chain: &Chain, load: Load) -> Result<Row> {
    let before = chain.usage()?;
    let result = load.run(&chain.url).await?;
    let after = chain.usage()?;
    let thousands = (result.requests as f64 / 1000.0).max(f64::MIN_POSITIVE);
    Ok(Row {
        chain: chain.name.to_owned(),
        body: load.body,
        connections: load.connections,
        per_second: result.per_second,
        to_nginx: 1.0,
        p50_ms: result.p50_ms,
        p99_ms: result.p99_ms,
        cpu_per_thousand: (after.cpu_seconds - before.cpu_seconds) / thousands,
        memory_mib: after.peak_mib,
        errors: result.errors,
    })
}

/// The run with the median rate; errors of all runs add up.
fn median(mut runs: Vec<Row>) -> Result<Row> {
    runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let errors = runs.iter().map(|row| row.errors).sum();
    let middle = runs.len() / 2;
    let row = runs.into_iter().nth(middle).context("at least one round")?;
    Ok(Row { errors, ..row })
}

/// Prints the rows as a table.
pub fn print(rows: &[Row]) {
    println!(
        "{:<10} {:>7} {:>6} {:>9} {:>9} {:>9} {:>9} {:>12} {:>8} {:>7}",
        "chain",
        "body B",
        "conns",
        "req/s",
        "to nginx",
        "p50 ms",
        "p99 ms",
        "cpu s/1000",
        "peak MiB",
        "errors"
    );
    for row in rows {
        println!(
            "{:<10} {:>7} {:>6} {:>9.0} {:>9.2} {:>9.2} {:>9.2} {:>12.3} {:>8.0} {:>7}",
            row.chain,
            row.body,
            row.connections,
            row.per_second,
            row.to_nginx,
            row.p50_ms,
            row.p99_ms,
            row.cpu_per_thousand,
            row.memory_mib,
            row.errors
        );
    }
}
