//! The figures as tables, CSV and JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::link::Link;

/// Requests at the end after a change that tell what the plan has settled on.
const SETTLED: usize = 5;

/// One request.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    pub method: String,
    pub turn: usize,
    /// From the request to the whole answer.
    pub ms: f64,
    /// First class of the answer.
    pub class: u64,
    /// Bytes of the body on the link.
    pub bytes: f64,
    pub network_ms: Option<f64>,
    pub predicted_ms: Option<f64>,
    pub chosen: Option<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    series: String,
    #[serde(flatten)]
    link: Link,
    #[serde(flatten)]
    sample: Sample,
}

/// What one method did on one link.
#[derive(Debug, Serialize)]
struct Summary {
    series: String,
    #[serde(flatten)]
    link: Link,
    method: String,
    requests: usize,
    median_ms: f64,
    p90_ms: f64,
    bytes: f64,
    network_ms: Option<f64>,
    /// Share of requests with the first class that the same photo has directly.
    agreement: Option<f64>,
    /// What the plan chose most often.
    chosen: Option<String>,
}

/// All figures.
#[derive(Debug, Serialize)]
pub struct Report {
    options: Vec<String>,
    summaries: Vec<Summary>,
    regrets: Vec<Regret>,
    prediction_error: Option<f64>,
    /// For each change of the bandwidth the options of the requests after it.
    changes: Vec<Vec<String>>,
    /// After how many requests of each change the plan had switched to where it stayed.
    switched_after: Vec<usize>,
    machine: String,
    date: String,
    #[serde(skip)]
    rows: Vec<Row>,
}

/// The plan against the best fixed option on one link.
#[derive(Debug, Serialize)]
struct Regret {
    series: String,
    #[serde(flatten)]
    link: Link,
    best: String,
    /// Median of the plan over that of the best, less one.
    share: f64,
}

impl Report {
    pub(super) fn new(options: &[String]) -> Self {
        Self {
            options: options.to_vec(),
            summaries: Vec::new(),
            regrets: Vec::new(),
            prediction_error: None,
            changes: Vec::new(),
            switched_after: Vec::new(),
            machine: sidecod_sidecar::profile::machine(),
            date: sidecod_sidecar::profile::today(),
            rows: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, series: &str, link: Link, sample: Sample) {
        self.rows.push(Row {
            series: series.to_owned(),
            link,
            sample,
        });
    }

    pub(super) fn change(&mut self, chosen: Vec<String>) {
        let end = &chosen[chosen.len().saturating_sub(SETTLED)..];
        let settled = most_frequent(end.iter()).unwrap_or_default();
        let first = chosen.iter().position(|option| *option == settled);
        self.switched_after
            .push(first.map_or(chosen.len(), |index| index + 1));
        self.changes.push(chosen);
    }

    /// Works out what the rows say.
    pub fn finish(mut self) -> Self {
        let mut links: Vec<(String, Link)> = Vec::new();
        let mut methods: Vec<String> = Vec::new();
        for row in &self.rows {
            if !links
                .iter()
                .any(|(series, link)| *series == row.series && *link == row.link)
            {
                links.push((row.series.clone(), row.link));
            }
            if !methods.contains(&row.sample.method) {
                methods.push(row.sample.method.clone());
            }
        }
        for (series, link) in links {
            let on_link = || {
                let rows = self.rows.iter();
                rows.filter(|row| row.series == series && row.link == link)
                    .map(|row| &row.sample)
            };
            let mut summaries = Vec::new();
            for method in &methods {
                let samples: Vec<&Sample> = on_link().filter(|s| s.method == *method).collect();
                if samples.is_empty() {
                    continue;
                }
                let agrees = samples.iter().filter_map(|sample| {
                    let mut direct = on_link().filter(|s| s.method == "direct jpeg");
                    let direct = direct.find(|direct| direct.turn == sample.turn)?;
                    Some(f64::from(u8::from(direct.class == sample.class)))
                });
                let agrees: Vec<f64> = agrees.collect();
                let times = || samples.iter().map(|sample| sample.ms);
                summaries.push(Summary {
                    series: series.clone(),
                    link,
                    method: method.clone(),
                    requests: samples.len(),
                    median_ms: quantile(times(), 0.5),
                    p90_ms: quantile(times(), 0.9),
                    bytes: quantile(samples.iter().map(|sample| sample.bytes), 0.5),
                    network_ms: samples
                        .iter()
                        .map(|sample| sample.network_ms)
                        .collect::<Option<Vec<f64>>>()
                        .map(|times| quantile(times.into_iter(), 0.5)),
                    agreement: (!agrees.is_empty())
                        .then(|| agrees.iter().sum::<f64>() / agrees.len() as f64),
                    chosen: (method == "plan")
                        .then(|| most_frequent(samples.iter().filter_map(|s| s.chosen.as_ref())))
                        .flatten(),
                });
            }
            let median = |s: &&Summary| s.median_ms;
            let fixed = summaries
                .iter()
                .filter(|s| self.options.contains(&s.method));
            let best = fixed.min_by(|a, b| median(a).total_cmp(&median(b)));
            let plan = summaries.iter().find(|s| s.method == "plan");
            if let (Some(best), Some(plan)) = (best, plan) {
                self.regrets.push(Regret {
                    series,
                    link,
                    best: best.method.clone(),
                    share: plan.median_ms / best.median_ms - 1.0,
                });
            }
            self.summaries.append(&mut summaries);
        }
        let errors = self.rows.iter().filter(|row| row.sample.method == "plan");
        let errors: Vec<f64> = errors
            .filter_map(|row| {
                let predicted = row.sample.predicted_ms?;
                Some((predicted - row.sample.ms).abs() / row.sample.ms)
            })
            .collect();
        if !errors.is_empty() {
            self.prediction_error = Some(quantile(errors.into_iter(), 0.5));
        }
        self
    }

    /// Writes latency.csv (every request) and latency.json.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let mut csv = String::from(
            "series,megabits,delay_ms,jitter_ms,loss,background_megabits,method,turn,ms,bytes,network_ms,predicted_ms,chosen,class\n",
        );
        let number = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.2}"));
        for Row {
            series,
            link,
            sample,
        } in &self.rows
        {
            // Writing to a string does not fail.
            let _ = writeln!(
                csv,
                "{series},{},{},{},{},{},{},{},{:.2},{:.0},{},{},{},{}",
                link.megabits,
                link.delay,
                link.jitter,
                link.loss,
                link.background,
                sample.method,
                sample.turn,
                sample.ms,
                sample.bytes,
                number(sample.network_ms),
                number(sample.predicted_ms),
                sample.chosen.as_deref().unwrap_or_default(),
                sample.class
            );
        }
        for (name, text) in [
            ("latency.csv", csv),
            ("latency.json", serde_json::to_string_pretty(self)?),
        ] {
            let file = folder.join(name);
            std::fs::write(&file, text)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

fn most_frequent<'s>(values: impl Iterator<Item = &'s String>) -> Option<String> {
    let mut counts: Vec<(&String, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(other, _)| *other == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(value, _)| value.clone())
}

/// Prints medians by link and method, regrets, the prediction error, and the switches.
pub fn print(report: &Report) {
    println!(
        "{}, {}; median milliseconds end to end\n",
        report.machine, report.date
    );
    let mut methods: Vec<&str> = Vec::new();
    for summary in &report.summaries {
        if !methods.contains(&&summary.method[..]) {
            methods.push(&summary.method);
        }
    }
    print!("{:<44}", "link");
    for method in &methods {
        print!(" {method:>13}");
    }
    println!("  plan took      regret");
    for regret in &report.regrets {
        let of = |method: &str| {
            let mut all = report.summaries.iter();
            all.find(|s| s.series == regret.series && s.link == regret.link && s.method == method)
        };
        print!("{:<44}", regret.link.to_string());
        for method in &methods {
            let ms = of(method).map_or("-".to_owned(), |s| format!("{:.1}", s.median_ms));
            print!(" {ms:>13}");
        }
        let chosen = of("plan")
            .and_then(|s| s.chosen.clone())
            .unwrap_or_default();
        println!("  {chosen:<12} {:>6.1} %", regret.share * 100.0);
    }
    if let Some(error) = report.prediction_error {
        println!(
            "\npredicted against measured: off by {:.1} % (median)",
            error * 100.0
        );
    }
    println!(
        "\nafter 20 -> 1 Mbit/s the plan had switched by request: {:?}",
        report.switched_after
    );
    println!("\noption                 bytes  network ms  agreement   (first link)");
    let first = report.summaries.first().map(|s| (s.series.clone(), s.link));
    for summary in report
        .summaries
        .iter()
        .filter(|s| Some((s.series.clone(), s.link)) == first)
    {
        let network = summary
            .network_ms
            .map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let agreement = summary
            .agreement
            .map_or("-".to_owned(), |a| format!("{a:.3}"));
        println!(
            "{:<20} {:>8.0} {network:>11} {agreement:>10}",
            summary.method, summary.bytes
        );
    }
}
