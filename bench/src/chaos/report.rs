//! What became of the requests.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::app::{Answer, Fault};
use super::memory::Both;
use super::photos::{self, Photo};

/// The kinds of errors that an app may get from a sidecar, as docs/resilience.md lists them.
pub const DOCUMENTED: [&str; 9] = [
    "edge-unreachable",
    "timeout",
    "upstream-unreachable",
    "upstream-broken",
    "upstream-timeout",
    "upstream-busy",
    "overloaded",
    "not-ready",
    "decode-failed",
];
/// Faults of each kind that are told in words.
const TOLD: usize = 5;

/// Counts over a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Requests that were sent.
    pub requests: u64,
    /// Answered by the model, with the right class.
    pub by_model: u64,
    /// Answered with a documented error, by its kind.
    pub errors: BTreeMap<String, u64>,
    /// Answered with anything else.
    pub undocumented: u64,
    /// Not answered, or only in part.
    pub lost: u64,
    /// Something came after the answer.
    pub twice: u64,
    /// Answered by the model with the class of another photo.
    pub wrong: u64,
    /// Requests that may be sent again, for which the model has worked more than once.
    pub repeated: u64,
    /// Requests that may not, for which it has.
    pub repeated_against_the_rules: u64,
    /// Answers of the model to an app that are not in the model server's journal.
    pub from_nowhere: u64,
    /// The slowest answer of the model, in milliseconds.
    pub slowest_ms: u64,
    /// From the end of the trouble until a photo crossed as a code, in milliseconds.
    pub recovered_ms: u64,
    /// How often each trouble was made.
    pub troubles: BTreeMap<&'static str, u64>,
    /// Memory of the sidecars.
    pub memory: Both,
    /// The first few of everything that must not be.
    pub faults: Vec<String>,
    #[serde(skip)]
    answered: Vec<String>,
}

impl Report {
    /// Counts a request.
    pub(super) fn note(
        &mut self,
        id: &str,
        photo: &Photo,
        answer: Result<Answer, Fault>,
        took: Duration,
    ) {
        self.requests += 1;
        match answer {
            Ok(answer) if answer.status == 200 && answer.error.is_none() => {
                match photos::class(&answer.body) {
                    Ok(class) if class == photo.class => {
                        self.by_model += 1;
                        self.slowest_ms = self.slowest_ms.max(took.as_millis() as u64);
                    }
                    class => {
                        self.wrong += 1;
                        self.fault(id, &format!("{} is answered with {class:?}", photo.name));
                    }
                }
                self.answered.push(id.to_owned());
            }
            Ok(answer) => match answer.error {
                Some(kind)
                    if DOCUMENTED.contains(&&kind[..])
                        && answer.status >= 400
                        && answer.content_type == "application/problem+json" =>
                {
                    *self.errors.entry(kind).or_default() += 1;
                }
                error => {
                    self.undocumented += 1;
                    let status = answer.status;
                    let body = String::from_utf8_lossy(&answer.body).into_owned();
                    self.fault(id, &format!("{status}, {error:?}: {body}"));
                }
            },
            Err(fault) => {
                match fault {
                    Fault::Lost(_) => self.lost += 1,
                    Fault::Twice(_) => self.twice += 1,
                }
                self.fault(id, &format!("after {took:?}: {fault}"));
            }
        }
    }

    /// Compares what the apps got with what the model server did.
    pub(super) fn read_journal(&mut self, journal: &Path) -> Result<()> {
        let text = std::fs::read_to_string(journal).context("the model server's journal")?;
        let mut worked: BTreeMap<&str, u64> = BTreeMap::new();
        for line in text.lines() {
            if let Some((id, "200")) = line.split_once(' ') {
                *worked.entry(id).or_default() += 1;
            }
        }
        for (id, times) in &worked {
            if *times > 1 && id.starts_with("again-") {
                self.repeated += 1;
            } else if *times > 1 {
                self.repeated_against_the_rules += 1;
                self.fault(id, &format!("the model has worked for it {times} times"));
            }
        }
        for id in std::mem::take(&mut self.answered) {
            if !worked.contains_key(&id[..]) {
                self.from_nowhere += 1;
                self.fault(&id, "answered, but not by the model server");
            }
        }
        Ok(())
    }

    /// Whether nothing happened that must not.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let bad = [
            self.undocumented,
            self.lost,
            self.twice,
            self.wrong,
            self.repeated_against_the_rules,
            self.from_nowhere,
        ];
        bad.iter().sum::<u64>() == 0 && self.by_model > 0
    }

    fn fault(&mut self, id: &str, what: &str) {
        if self.faults.len() < 6 * TOLD {
            self.faults.push(format!("{id}: {what}"));
        }
    }
}

/// Prints a table for people.
pub fn print(report: &Report) {
    let row = |name: &str, value: String| println!("{name:<52} {value:>10}");
    for (name, count) in &report.troubles {
        row(name, count.to_string());
    }
    println!();
    for (name, count) in [
        ("requests", report.requests),
        ("  answered by the model, rightly", report.by_model),
    ] {
        row(name, count.to_string());
    }
    for (kind, count) in &report.errors {
        row(&format!("  answered with {kind}"), count.to_string());
    }
    for (name, count) in [
        ("  answered with anything else", report.undocumented),
        ("  lost", report.lost),
        ("  answered twice", report.twice),
        ("  answered wrongly", report.wrong),
        (
            "  answered, and not by the model server",
            report.from_nowhere,
        ),
        ("worked for twice by the model, as allowed", report.repeated),
        (
            "worked for twice by the model, not allowed",
            report.repeated_against_the_rules,
        ),
    ] {
        row(name, count.to_string());
    }
    println!();
    row(
        "slowest answer of the model",
        format!("{} ms", report.slowest_ms),
    );
    row(
        "from the end of the trouble to the next code",
        format!("{} ms", report.recovered_ms),
    );
    for (name, memory) in report.memory.each() {
        row(
            &format!("{name}, memory of the first and last minute"),
            format!("{:.1}, {:.1} MiB", memory.first_mib, memory.last_mib),
        );
        row(
            &format!("{name}, peak"),
            format!("{:.1} MiB", memory.peak_mib),
        );
    }
    for fault in &report.faults {
        println!("fault: {fault}");
    }
}
