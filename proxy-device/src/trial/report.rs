//! What codes have saved and how far their answers agree: `/report` on the admin port, and
//! `proxy-device report`, which asks for it.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::tally::Trust;
use super::wilson::Interval;
use super::{Saved, Trial, Trials};
use crate::reload::Current;

/// Bytes of a report.
const MOST: u64 = 4 << 20;
/// For the admin port to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the sidecar has done since its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Seconds since then.
    pub up_s: u64,
    /// Its routes, by name.
    pub routes: Vec<OfRoute>,
}

/// What a route's requests have come to. Only those count that could have been coded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfRoute {
    /// Its name.
    pub route: String,
    /// `offload` or `observe`.
    pub mode: String,
    /// `trusted`, `distrusted` (it passes through) or `on-trial` (codes are tried beside it).
    pub trust: String,
    /// Seconds until a distrusted route's codes are tried again.
    pub again_in_s: Option<u64>,
    /// Requests.
    pub requests: u64,
    /// Those that crossed as codes.
    pub coded: Bytes,
    /// Those whose codes were computed, and not sent in their place.
    pub observed: Bytes,
    /// Milliseconds that computing such a code took, mean.
    pub observed_encode_ms: Option<f64>,
    /// Share of the requests that is sent both ways.
    pub verify: f64,
    /// What about their answers has to be the same.
    pub compare: super::compare::Preset,
    /// Bytes of bodies that were sent only to be compared.
    pub verify_bytes: u64,
    /// Share that agrees, of the latest comparisons.
    pub agreement: Option<Interval>,
    /// The least share that has to.
    pub min_agreement: Option<f64>,
    /// Milliseconds to the head of an answer, means over the same requests.
    pub times: Option<Times>,
    /// Comparisons that told nothing.
    pub unusable: u64,
    /// Second answers that did not come.
    pub failed: u64,
    /// Requests that were to be compared, and found no place.
    pub skipped: u64,
}

/// Bodies and their codes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bytes {
    /// Requests.
    pub requests: u64,
    /// Bytes of their bodies.
    pub original: u64,
    /// Bytes of their codes.
    pub code: u64,
}

/// The same requests both ways.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// As codes, encoding included.
    pub code_ms: f64,
    /// As they are.
    pub original_ms: f64,
}

/// `/report` for the admin port.
pub fn router(current: Current) -> Router {
    Router::new().route(
        "/report",
        get(async move || Json(current.get().trials.report())),
    )
}

impl Trials {
    /// What there is to tell.
    #[must_use]
    pub fn report(&self) -> Report {
        let now = Instant::now();
        let mut routes: Vec<_> = self
            .routes
            .values()
            .map(|trial| trial.report(now))
            .collect();
        routes.sort_by(|a, b| a.route.cmp(&b.route));
        Report {
            up_s: now.duration_since(self.begun).as_secs(),
            routes,
        }
    }
}

impl Trial {
    fn report(&self, now: Instant) -> OfRoute {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mut state = self.state();
        let (trust, again_in_s) = match state.tally.trust(now) {
            Trust::Trusted => ("trusted", None),
            Trust::OnTrial => ("on-trial", None),
            Trust::Distrusted(until) => ("distrusted", Some((until - now).as_secs())),
        };
        let counts = state.counts.clone();
        OfRoute {
            route: self.name(),
            mode: self.route.mode.name().to_owned(),
            trust: trust.to_owned(),
            again_in_s,
            requests: counts.requests,
            coded: counts.coded.into(),
            observed: counts.observed.into(),
            observed_encode_ms: (counts.observed.requests > 0)
                .then(|| ms(counts.encoding) / counts.observed.requests as f64),
            verify: self.route.verify,
            compare: self.route.compare,
            verify_bytes: counts.verify_bytes,
            agreement: state.tally.agreement(),
            min_agreement: self.route.min_agreement,
            times: state.tally.times().map(|(code, original)| Times {
                code_ms: ms(code),
                original_ms: ms(original),
            }),
            unusable: counts.unusable,
            failed: counts.failed,
            skipped: counts.skipped,
        }
    }
}

impl From<Saved> for Bytes {
    fn from(saved: Saved) -> Self {
        Self {
            requests: saved.requests,
            original: saved.original,
            code: saved.code,
        }
    }
}

/// Asks the admin port of a running sidecar; the text is JSON.
///
/// # Errors
/// If it does not answer, or not with a report.
pub fn ask(admin: SocketAddr) -> Result<String> {
    let asking = || format!("the admin port of proxy-device, {admin}");
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).with_context(asking)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /report HTTP/1.0\r\nHost: {admin}\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(asking)?;
    let mut answer = String::new();
    stream
        .take(MOST)
        .read_to_string(&mut answer)
        .with_context(asking)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(asking)?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200"), "{} answers {status}", asking());
    Ok(body.to_owned())
}

/// Reads what [`ask`] gave.
///
/// # Errors
/// If it is no report, as that of another version may be.
pub fn read(text: &str) -> Result<Report> {
    serde_json::from_str(text).context("no report of this version of proxy-device")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up {}", duration(self.up_s))?;
        if self.routes.is_empty() {
            write!(f, "\n\nno route: everything passes through")?;
        }
        for route in &self.routes {
            write!(f, "\n\n{route}")?;
        }
        Ok(())
    }
}

impl fmt::Display for OfRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}: {}", self.route, self.state())?;
        let Bytes { requests, .. } = self.coded;
        let others = self.requests - requests.min(self.requests);
        write!(
            f,
            "\n  requests   {}, {requests} as codes, {others} as they were",
            self.requests
        )?;
        write!(f, "\n  bytes      {}", self.bytes())?;
        write!(f, "\n  time       {}", self.time())?;
        write!(f, "\n  agreement  {}", self.agrees())
    }
}

impl OfRoute {
    fn state(&self) -> String {
        let again = self
            .again_in_s
            .map(|seconds| format!(", tried again in {}", duration(seconds)));
        match (&self.mode[..], &self.trust[..]) {
            ("observe", _) => "observed, nothing is sent as a code".to_owned(),
            (_, "distrusted") => {
                let again = again.unwrap_or_default();
                format!("distrusted, passes through{again}")
            }
            (_, "on-trial") => "on trial, passes through while codes are tried".to_owned(),
            _ => "offloaded".to_owned(),
        }
    }

    fn bytes(&self) -> String {
        let mut parts = Vec::new();
        if self.coded.requests > 0 {
            parts.push(format!("{} sent", self.coded));
        }
        if self.observed.requests > 0 {
            let encode = self.observed_encode_ms.unwrap_or_default();
            parts.push(format!(
                "{} if sent (of {} that were looked at, {encode:.0} ms each)",
                self.observed, self.observed.requests
            ));
        }
        if self.verify_bytes > 0 {
            parts.push(format!(
                "{} spent on sending both ways",
                bytes(self.verify_bytes)
            ));
        }
        if parts.is_empty() {
            parts.push("nothing could be coded yet".to_owned());
        }
        parts.join("; ")
    }

    fn time(&self) -> String {
        let (Some(times), Some(agreement)) = (self.times, self.agreement) else {
            return if self.verify > 0.0 {
                "no request has been sent both ways yet".to_owned()
            } else {
                "not known: say verify = 0.02, so that some requests are sent both ways".to_owned()
            };
        };
        let saved = times.original_ms - times.code_ms;
        let word = if saved < 0.0 { "lost" } else { "saved" };
        format!(
            "{:.0} ms as they are, {:.0} ms as codes: {:.0} ms {word} a request, mean of {}",
            times.original_ms,
            times.code_ms,
            saved.abs(),
            agreement.cases
        )
    }

    fn agrees(&self) -> String {
        let mut text = match self.agreement {
            Some(found) => format!(
                "{:.1} % of {} (95 % interval {:.1} to {:.1} %)",
                found.share * 100.0,
                found.cases,
                found.low * 100.0,
                found.high * 100.0
            ),
            None => "not known".to_owned(),
        };
        if let Some(floor) = self.min_agreement {
            text = format!("{text}, floor {:.1} %", floor * 100.0);
        }
        for (count, what) in [
            (self.unusable, "could not be compared"),
            (self.failed, "got no second answer"),
            (self.skipped, "found no place"),
        ] {
            if count > 0 {
                text = format!("{text}; {count} {what}");
            }
        }
        text
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let saved = 100.0 * (1.0 - self.code as f64 / self.original.max(1) as f64);
        write!(
            f,
            "{} as {}, {saved:.1} % less",
            bytes(self.original),
            bytes(self.code)
        )
    }
}

fn bytes(count: u64) -> String {
    match count as f64 {
        few if few < 1e3 => format!("{count} B"),
        some if some < 1e6 => format!("{:.1} kB", some / 1e3),
        many if many < 1e9 => format!("{:.1} MB", many / 1e6),
        most => format!("{:.2} GB", most / 1e9),
    }
}

fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::wilson;
    use super::*;

    #[test]
    fn it_reads_like_one() {
        let mut route = OfRoute {
            route: "classify".to_owned(),
            mode: "offload".to_owned(),
            trust: "trusted".to_owned(),
            again_in_s: None,
            requests: 1204,
            coded: Bytes {
                requests: 1180,
                original: 18_200_000,
                code: 4_100_000,
            },
            observed: Bytes {
                requests: 0,
                original: 0,
                code: 0,
            },
            observed_encode_ms: None,
            verify: 0.02,
            compare: super::super::compare::Preset::Auto,
            verify_bytes: 400_000,
            agreement: wilson::interval(30, 31),
            min_agreement: Some(0.9),
            times: Some(Times {
                code_ms: 188.0,
                original_ms: 412.0,
            }),
            unusable: 0,
            failed: 1,
            skipped: 0,
        };
        assert_eq!(
            route.to_string(),
            "route classify: offloaded\n  \
             requests   1204, 1180 as codes, 24 as they were\n  \
             bytes      18.2 MB as 4.1 MB, 77.5 % less sent; 400.0 kB spent on sending both ways\n  \
             time       412 ms as they are, 188 ms as codes: 224 ms saved a request, mean of 31\n  \
             agreement  96.8 % of 31 (95 % interval 83.8 to 99.4 %), floor 90.0 %; 1 got no second answer"
        );
        route.trust = "distrusted".to_owned();
        route.again_in_s = Some(61);
        assert_eq!(
            route.state(),
            "distrusted, passes through, tried again in 1 min 1 s"
        );
        let report = Report {
            up_s: 4000,
            routes: vec![route],
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(read(&json).unwrap(), report);
        assert!(read("{}").is_err());
    }
}
