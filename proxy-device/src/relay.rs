//! Answers on their way back to the app: streamed, less what is between the sidecars.

use std::sync::LazyLock;
use std::time::Duration;

use http::header::Entry;
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};
use hyper::body::Incoming;
use metrics::Histogram;
use sidecod_sidecar::Body;
use sidecod_sidecar::body::{relayed, silent};
use sidecod_sidecar::hop::{remove_hop_by_hop, remove_prefixed};
use sidecod_sidecar::metrics::Handles;
use sidecod_wire::header::{ERROR, PREFIX};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The entries that an edge writes, in this order, as the last value of the header, and what they are
/// called here.
const EDGE_STEPS: [(&str, &str); 4] = [
    ("queue", "edge_queue"),
    ("decode", "edge_decode"),
    ("render", "edge_render"),
    ("upstream", "edge_upstream"),
];

/// What the steps of a request take.
pub static STEPS: LazyLock<Handles<Histogram>> = LazyLock::new(|| {
    Handles::new(|step| metrics::histogram!("sidecod_device_step_seconds", "step" => step))
});

/// What an edge says of its time: an extension of the answer.
#[derive(Debug, Clone)]
pub struct EdgeSteps(pub Vec<(&'static str, Duration)>);

/// The kind of the edge's own error, if the answer is one.
#[must_use]
pub fn edge_error<B>(answer: &Response<B>) -> Option<String> {
    Some(String::from_utf8_lossy(answer.headers().get(ERROR)?.as_bytes()).into_owned())
}

/// An answer of the edge as the app gets it, and the time that the edge has taken.
pub struct FromEdge {
    /// The answer.
    pub answer: Response<Body>,
    /// What the edge's own `Server-Timing` says.
    pub edge: EdgeTime,
}

/// What a request took at the edge, as the edge says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EdgeTime {
    /// Waiting for a decoder; none where nothing was decoded.
    pub queue: Option<Duration>,
    /// From the frame to pixels.
    pub decode: Duration,
    /// From pixels to the body.
    pub render: Duration,
    /// From the whole body to the head of the model server's answer.
    pub upstream: Duration,
}

impl EdgeTime {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.queue.unwrap_or_default() + self.decode + self.render + self.upstream
    }
}

/// Makes an answer of the edge one for the app.
#[must_use]
pub fn from_edge(mut answer: Response<Incoming>, keep_server_timing: bool) -> FromEdge {
    let error = answer.headers().get(ERROR).cloned();
    let edge = take_server_timing(&mut answer, keep_server_timing);
    let mut answer = from_upstream(answer);
    if let Some(error) = error {
        answer.headers_mut().insert(ERROR, error);
    }
    FromEdge { answer, edge }
}

/// An answer of the model server itself as the app gets it.
#[must_use]
pub fn from_upstream(mut answer: Response<Incoming>) -> Response<Body> {
    *answer.version_mut() = Version::HTTP_11;
    remove_hop_by_hop(answer.headers_mut());
    remove_prefixed(answer.headers_mut(), PREFIX);
    if answer.status() == StatusCode::NOT_MODIFIED {
        return answer.map(|_| silent());
    }
    answer.map(relayed)
}

/// Records what the edge says of its time and takes it out of the answer.
fn take_server_timing<B>(answer: &mut Response<B>, keep: bool) -> EdgeTime {
    let Entry::Occupied(mut values) = answer.headers_mut().entry(SERVER_TIMING) else {
        return EdgeTime::default();
    };
    let last = values.iter().next_back();
    let Some(steps) = last.and_then(|last| edge_steps(last.to_str().ok()?)) else {
        return EdgeTime::default();
    };
    for &(step, time) in &steps {
        STEPS.get(step).record(time);
    }
    if !keep {
        let others: Vec<HeaderValue> = {
            let mut all = values.iter();
            all.next_back();
            all.cloned().collect()
        };
        match others.split_first() {
            None => drop(values.remove()),
            Some((first, others)) => {
                values.insert(first.clone());
                for value in others {
                    values.append(value.clone());
                }
            }
        }
    }
    let mut edge = EdgeTime::default();
    for &(step, time) in &steps {
        match step {
            "edge_queue" => edge.queue = Some(time),
            "edge_decode" => edge.decode = time,
            "edge_render" => edge.render = time,
            _ => edge.upstream = time,
        }
    }
    answer.extensions_mut().insert(EdgeSteps(steps));
    edge
}

/// The steps of a value that an edge wrote; none for any other value.
fn edge_steps(value: &str) -> Option<Vec<(&'static str, Duration)>> {
    let steps = value.split(',').map(|entry| {
        let (name, time) = entry.trim().split_once(";dur=")?;
        let (_, step) = EDGE_STEPS.into_iter().find(|(entry, _)| *entry == name)?;
        Some((
            step,
            Duration::try_from_secs_f64(time.parse::<f64>().ok()? / 1e3).ok()?,
        ))
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(values: &[&'static str], keep: bool) -> Vec<HeaderValue> {
        let mut answer = Response::new(());
        for value in values {
            answer
                .headers_mut()
                .append(SERVER_TIMING, HeaderValue::from_static(value));
        }
        take_server_timing(&mut answer, keep);
        answer
            .headers()
            .get_all(SERVER_TIMING)
            .iter()
            .cloned()
            .collect()
    }

    #[test]
    fn only_the_edges_own_timing_is_taken() {
        let edge = "queue;dur=0.1, decode;dur=12.5, render;dur=1, upstream;dur=30.25";
        assert_eq!(left(&["db;dur=3", edge], false), ["db;dur=3"]);
        assert_eq!(left(&["db;dur=3", edge], true), ["db;dur=3", edge]);
        assert_eq!(
            left(&["upstream;dur=3, db;dur=1"], false),
            ["upstream;dur=3, db;dur=1"]
        );
        assert_eq!(left(&["upstream;dur=-3"], false), ["upstream;dur=-3"]);
        assert_eq!(
            edge_steps("decode;dur=12.5"),
            Some(vec![("edge_decode", Duration::from_micros(12_500))])
        );
    }
}
