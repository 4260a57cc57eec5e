//! What the plan tells of itself: `GET /plan` on the admin port.

use serde::Serialize;

use super::choose::Why;
use super::option::Fidelity;

/// The whole page.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Machine and day of the device's profile, where there is one.
    pub profile: Option<String>,
    /// Milliseconds of work that waits for the encoding threads.
    pub queued_ms: f64,
    /// The edges.
    pub edges: Vec<Edge>,
    /// The routes.
    pub routes: Vec<RouteReport>,
}

/// What is known of an edge and the link to it.
#[derive(Debug, Clone, Serialize)]
pub struct Edge {
    /// Its address.
    pub edge: String,
    /// Milliseconds of a round trip.
    pub rtt_ms: f64,
    /// Megabits a second.
    pub bandwidth_mbit: f64,
    /// Requests and probes that this is known from.
    pub observations: u64,
    /// Milliseconds that a frame has lately waited for a decoder.
    pub queue_ms: f64,
    /// Machine and day of its profile, where it has one.
    pub profile: Option<String>,
}

/// A route and the last choice in it.
#[derive(Debug, Clone, Serialize)]
pub struct RouteReport {
    /// Its name.
    pub route: String,
    /// What an option has to keep.
    pub floor: Fidelity,
    /// Most milliseconds that the device may take.
    pub max_device_ms: Option<f64>,
    /// The options, and how often each was taken.
    pub options: Vec<OptionReport>,
    /// The last choice, where there was one.
    pub last: Option<Decision>,
}

/// An option over all requests.
#[derive(Debug, Clone, Serialize)]
pub struct OptionReport {
    /// Its name.
    pub option: String,
    /// What it is known to keep.
    pub fidelity: Fidelity,
    /// Whether that is enough.
    pub keeps_floor: bool,
    /// Requests that took it.
    pub taken: u64,
    /// Mean of how far recent predictions were off, as a share of what was measured.
    pub error: Option<f64>,
}

/// A choice.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// The edge that it was made for.
    pub edge: String,
    /// Pixels of the inputs.
    pub pixels: u64,
    /// Bytes of the app's body.
    pub body_bytes: usize,
    /// The option that was taken.
    pub chosen: String,
    /// Why.
    pub why: Why,
    /// All options, with their predicted parts.
    pub options: Vec<Predicted>,
    /// What the request then took, once it was answered.
    pub measured: Option<Measured>,
}

/// The predicted parts of an option, in milliseconds and bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Predicted {
    /// The option.
    pub option: String,
    /// Whether it could have been taken.
    pub allowed: bool,
    /// Waiting for an encoding thread.
    pub device_queue_ms: f64,
    /// Work on the device.
    pub device_ms: f64,
    /// Bytes on the link.
    pub bytes: f64,
    /// The link, there and back.
    pub network_ms: f64,
    /// Waiting for a decoder.
    pub edge_queue_ms: f64,
    /// Work on the edge.
    pub edge_ms: f64,
    /// The model server.
    pub upstream_ms: f64,
    /// All of it.
    pub total_ms: f64,
}

/// What a request took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Measured {
    /// Work on the device, waiting for it included.
    pub device_ms: f64,
    /// Bytes of the body that crossed.
    pub bytes: u64,
    /// The link.
    pub network_ms: f64,
    /// The edge, waiting included.
    pub edge_ms: f64,
    /// The model server.
    pub upstream_ms: f64,
    /// From the whole request to the head of the answer.
    pub total_ms: f64,
    /// What had been predicted for that.
    pub predicted_ms: f64,
}
