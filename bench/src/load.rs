//! Overload: three times as many requests as there is capacity for, whether or not they are answered.
//!
//! Capacity is what a few apps get that each wait for their answers. Then requests come at a fixed
//! pace, as from many apps that know nothing of each other. What cannot be served must be refused
//! early, so that what is admitted is answered in time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::chaos::app::{Answer, Ask, Fault};
use crate::chaos::memory::{self, Both};
use crate::chaos::photos::{self, Photo};
use crate::stack::{Stack, set};

const PATH: &str = "/predictions/efficientnet-lite0";
/// Side of the photos, in pixels.
const SIDE: u32 = 224;
/// Apps that measure the capacity.
const APPS: usize = 12;
/// Requests that the model server gets at a time: a few for each of its threads, so that none of them
/// ever waits, and no request for long.
const IN_FLIGHT: usize = 8;
/// A request without an answer after this time is lost.
const PATIENCE: Duration = Duration::from_mins(1);

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Seconds for the capacity, and again for the overload.
    pub seconds: u64,
    /// How many times the capacity.
    pub times: f64,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Answers of the model in a second, when apps wait for them.
    pub capacity: f64,
    /// Requests sent in a second of the overload.
    pub offered: f64,
    /// Answers of the model in a second of the overload.
    pub goodput: f64,
    /// The same, as a ratio to the capacity.
    pub of_capacity: f64,
    /// Median milliseconds until the model's answer when apps wait for them.
    pub unloaded_p50_ms: f64,
    /// Median milliseconds until the model's answer in the overload.
    pub p50_ms: f64,
    /// 99th percentile of them.
    pub p99_ms: f64,
    /// Refusals, by their kind.
    pub refused: BTreeMap<String, u64>,
    /// Median milliseconds until a refusal.
    pub refused_p50_ms: f64,
    /// Requests without a whole answer, or with a wrong one.
    pub lost: u64,
    /// Memory of the sidecars.
    pub memory: Both,
}

/// Measures the capacity, then overloads a freshly started stack.
///
/// # Errors
/// If a program does not start, or nothing is answered.
pub async fn measure(options: Options) -> Result<Report> {
    let bounded = |server: &str| {
        let upstream =
            format!("[{{name=\"default\",url=\"http://{server}\",max_in_flight={IN_FLIGHT}}}]");
        // As many as the cores that it is given.
        let threads = cores().saturating_sub(1).max(1).to_string();
        [set("upstream", &upstream), set("torch_threads", &threads)].concat()
    };
    let stack = Stack::start_with(&[], bounded).await?;
    apart(&stack)?;
    let device: SocketAddr = stack.device.address("reverse").parse()?;
    let photos = Arc::new(photos::load(SIDE)?);
    let time = Duration::from_secs(options.seconds);

    // Connections, plans for this size and the system's caches.
    closed(
        device,
        &photos,
        Instant::now() + time.min(Duration::from_secs(5)),
    )
    .await;
    let begin = Instant::now();
    let mut tally = closed(device, &photos, begin + time).await;
    let capacity = tally.answered.len() as f64 / begin.elapsed().as_secs_f64();
    ensure!(capacity > 0.0, "nothing is answered even without overload");
    let unloaded_p50_ms = percentile(&mut tally.answered, 0.5);

    let edge = Arc::new(AtomicU32::new(stack.edge.id()));
    let begin = Instant::now();
    let end = begin + time;
    let (mut tally, memory) = tokio::join!(
        open(device, &photos, end, options.times * capacity),
        memory::until(end, stack.device.id(), edge),
    );
    let seconds = time.as_secs_f64();
    let goodput = tally.in_time as f64 / seconds;
    Ok(Report {
        capacity,
        offered: tally.sent as f64 / seconds,
        goodput,
        of_capacity: goodput / capacity,
        unloaded_p50_ms,
        p50_ms: percentile(&mut tally.answered, 0.5),
        p99_ms: percentile(&mut tally.answered, 0.99),
        refused: tally.refused,
        refused_p50_ms: percentile(&mut tally.refusals, 0.5),
        lost: tally.lost,
        memory,
    })
}

/// Gives the apps and the device one core, and the edge and the model server the others: they are
/// different machines, and what a device spends on requests that are refused takes nothing from an edge.
fn apart(stack: &Stack) -> Result<()> {
    let cores = cores();
    if cores == 1 {
        return Ok(());
    }
    let others = format!("1-{}", cores - 1);
    for (process, cores) in [
        (std::process::id(), "0"),
        (stack.device.id(), "0"),
        (stack.edge.id(), &others[..]),
        (stack.server.id(), &others[..]),
    ] {
        let mut taskset = Command::new("taskset");
        let taskset = taskset.args(["-a", "-c", "-p", cores, &process.to_string()]);
        let status = taskset.stdout(Stdio::null()).status();
        let status = status.context("taskset, of util-linux")?;
        ensure!(status.success(), "taskset cannot bind process {process}");
    }
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[derive(Default)]
struct Tally {
    sent: u64,
    /// Answers of the model before the end.
    in_time: u64,
    /// Milliseconds of each answer of the model.
    answered: Vec<f64>,
    refused: BTreeMap<String, u64>,
    refusals: Vec<f64>,
    lost: u64,
}

impl Tally {
    fn note(&mut self, outcome: &Outcome) {
        self.sent += 1;
        let milliseconds = outcome.took.as_secs_f64() * 1e3;
        match &outcome.answer {
            Ok(answer) if answer.status == 200 && photos::class(&answer.body).is_ok() => {
                self.answered.push(milliseconds);
                self.in_time += u64::from(outcome.in_time);
            }
            Ok(Answer {
                error: Some(kind), ..
            }) => {
                *self.refused.entry(kind.clone()).or_default() += 1;
                self.refusals.push(milliseconds);
            }
            _ => self.lost += 1,
        }
    }
}

struct Outcome {
    answer: Result<Answer, Fault>,
    took: Duration,
    in_time: bool,
}

async fn send(device: SocketAddr, photo: &Photo, end: Instant) -> Outcome {
    let ask = Ask {
        id: "load".to_owned(),
        path: PATH,
        content_type: "image/jpeg",
        body: &photo.jpeg,
    };
    let begin = Instant::now();
    let answer = ask.send(device, PATIENCE).await;
    Outcome {
        answer,
        took: begin.elapsed(),
        in_time: Instant::now() <= end,
    }
}

/// Apps that wait for their answers.
async fn closed(device: SocketAddr, photos: &[Photo], end: Instant) -> Tally {
    let app = |index: usize| async move {
        let mut outcomes = Vec::new();
        let mut photos = photos.iter().cycle().skip(index);
        while let Some(photo) = photos.next().filter(|_| Instant::now() < end) {
            outcomes.push(send(device, photo, end).await);
        }
        outcomes
    };
    let mut tally = Tally::default();
    for outcome in join_all((0..APPS).map(app)).await.iter().flatten() {
        tally.note(outcome);
    }
    tally
}

/// Requests at a fixed pace.
async fn open(device: SocketAddr, photos: &Arc<Vec<Photo>>, end: Instant, pace: f64) -> Tally {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / pace));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut requests = JoinSet::new();
    let mut index = 0;
    while Instant::now() < end {
        ticks.tick().await;
        let photos = photos.clone();
        requests.spawn(async move { send(device, &photos[index % photos.len()], end).await });
        index += 1;
    }
    let mut tally = Tally::default();
    while let Some(outcome) = requests.join_next().await {
        match outcome {
            Ok(outcome) => tally.note(&outcome),
            Err(_) => tally.lost += 1,
        }
    }
    tally
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or_default()
}

/// Prints a table for people.
pub fn print(report: &Report) {
    let row = |name: &str, value: String| println!("{name:<52} {value:>12}");
    row("capacity", format!("{:.1}/s", report.capacity));
    row("offered", format!("{:.1}/s", report.offered));
    row("answered by the model", format!("{:.1}/s", report.goodput));
    row(
        "  of the capacity",
        format!("{:.0} %", report.of_capacity * 100.0),
    );
    row(
        "until the model's answer, at capacity, median",
        format!("{:.0} ms", report.unloaded_p50_ms),
    );
    row(
        "until the model's answer, overloaded, median",
        format!("{:.0} ms", report.p50_ms),
    );
    row("  99th percentile", format!("{:.0} ms", report.p99_ms));
    for (kind, count) in &report.refused {
        row(&format!("refused with {kind}"), count.to_string());
    }
    row(
        "until a refusal, median",
        format!("{:.0} ms", report.refused_p50_ms),
    );
    row("lost", report.lost.to_string());
    for (name, memory) in report.memory.each() {
        row(
            &format!("{name}, memory at the beginning and the end"),
            format!("{:.1}, {:.1} MiB", memory.first_mib, memory.last_mib),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut values: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert!((percentile(&mut values, 0.5) - 50.0).abs() < f64::EPSILON);
        assert!((percentile(&mut values, 0.99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile(&mut [], 0.5)).abs() < f64::EPSILON);
    }
}
