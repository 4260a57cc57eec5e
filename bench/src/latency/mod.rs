//! End-to-end latency over a shaped link: every option, the plan, and no Sidecod at all, in one run.
//!
//! App and device sidecar live in one network namespace, edge sidecar and model server in another.
//! Between them stand `tc` (bandwidth, in both directions) and a relay of packets (delay, jitter,
//! loss). Methods take turns, request by request, and each turn begins with another, so that whatever
//! else keeps the machine busy, and whatever a request leaves behind, hits all of them alike.

mod client;
mod link;
mod programs;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub use report::print;

use link::{Link, Net};
use programs::Programs;
use report::Report;

use crate::fidelity;
use crate::netns::Namespace;

/// Delay each way of the sweeps, milliseconds.
const DELAY: f64 = 10.0;
/// Megabits a second of the sweep.
const RATES: [f64; 9] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 450.0];
/// Megabits a second of the link that others use too.
const SHARED: f64 = 20.0;
/// Shares of it that they use.
const BACKGROUND: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 0.9];
/// A change of the bandwidth, megabits a second, and how often it is made.
const CHANGE: (f64, f64) = (20.0, 1.0);
const CHANGES: usize = 3;
/// Requests of the plan before it is measured on a link, and after a change.
const SETTLE: usize = 8;

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of photos.
    pub data: PathBuf,
    /// Requests of each method on each link.
    pub requests: usize,
    /// Folder with what `proxy-device profile` and `proxy-edge profile` wrote.
    pub profiles: Option<PathBuf>,
    /// Folder of the bundle.
    pub codec: PathBuf,
    /// Folder of points inside the model that options may name.
    pub points: Option<PathBuf>,
    /// Options of the route, as in its configuration; the built-in ones if there are none.
    pub options: Vec<String>,
    /// Folder for CSV and JSON.
    pub out: Option<PathBuf>,
}

/// Makes the namespaces, measures in them, and draws what was written into `out`.
///
/// # Errors
/// If this user may make none, or as [`measure`].
pub fn start(out: Option<&Path>) -> Result<()> {
    let [near, middle, far] = [
        Namespace::new("near")?,
        Namespace::new("middle")?,
        Namespace::new("far")?,
    ];
    Net::join(&near, &middle)?;
    let names = [near.name(), middle.name(), far.name()].join(",");
    let program = std::env::current_exe().context("where this program stands")?;
    let status = near
        .command(program)
        .args(std::env::args_os().skip(1))
        .args(["--inside", &names])
        .status()?;
    ensure!(status.success(), "the measurement ended with {status}");
    // In a namespace nothing could be fetched that the plots need.
    out.map_or(Ok(()), |folder| fidelity::plot("latency.py", folder))
}

/// Measures inside the first of these namespaces.
///
/// # Errors
/// If a program does not start, or an answer is not the model server's.
pub async fn measure(options: &Options, inside: &str) -> Result<Report> {
    let names: Vec<&str> = inside.split(',').collect();
    let [near, middle, far] = names[..] else {
        anyhow::bail!("--inside wants three namespaces");
    };
    let [near, middle, far] = [near, middle, far].map(Namespace::named);
    let mut net = Net::start(&near, &middle, &far)?;
    let photos = client::photos(&options.data)?;
    let programs = Programs::start(&far, options).await?;
    let mut report = Report::new(programs.options());
    let sweep = |megabits| Link {
        megabits,
        delay: DELAY,
        ..Link::default()
    };

    let mut links: Vec<(String, Link)> = Vec::new();
    let wifi = Link {
        megabits: 450.0,
        delay: 2.0,
        jitter: 1.0,
        ..Link::default()
    };
    let lte = Link {
        megabits: 20.0,
        delay: 25.0,
        jitter: 8.0,
        loss: 0.001,
        ..Link::default()
    };
    links.push(("wifi".to_owned(), wifi));
    links.push(("lte".to_owned(), lte));
    links.extend(RATES.map(|rate| ("bandwidth".to_owned(), sweep(rate))));
    links.extend(BACKGROUND.map(|share| {
        let background = SHARED * share;
        let link = Link {
            background,
            ..sweep(SHARED)
        };
        ("background".to_owned(), link)
    }));
    for (series, link) in &links {
        eprintln!("{series}: {link}");
        net.set(*link)?;
        for turn in 0..SETTLE {
            client::plan(&programs, &photos[turn % photos.len()]).await?;
        }
        for turn in 0..options.requests {
            let photo = &photos[turn % photos.len()];
            let mut methods = programs.methods();
            let first = turn % methods.len();
            methods.rotate_left(first);
            for method in methods {
                if let Some(sample) = client::send(&programs, &method, photo, *link, turn).await? {
                    report.add(series, *link, sample);
                }
            }
        }
    }
    for _ in 0..CHANGES {
        net.set(sweep(CHANGE.0))?;
        for turn in 0..2 * SETTLE {
            client::plan(&programs, &photos[turn % photos.len()]).await?;
        }
        net.set(sweep(CHANGE.1))?;
        let mut chosen = Vec::new();
        for turn in 0..2 * SETTLE {
            let sample = client::plan(&programs, &photos[turn % photos.len()]).await?;
            chosen.push(sample.chosen.unwrap_or_default());
        }
        report.change(chosen);
    }
    let report = report.finish();
    if let Some(folder) = &options.out {
        report.write(folder)?;
    }
    Ok(report)
}
