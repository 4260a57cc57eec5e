//! The plan's memory and its arithmetic:
//! argmin over options of `device + bytes / bandwidth + round trip + edge`, with what waits before
//! them (DeepCOD, SenSys 2020, section on its runtime phase).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sidecod_wire::media::coded_size;
use sidecod_wire::profile::{Part, Profile, RESTORE};
use sidecod_wire::slot::Form;
use tokio::time::Instant;

use super::choose::{Candidate, Why};
use super::estimate::Estimate;
use super::option::{Kind, Offer};
use super::report::{self, Decision, Measured, OptionReport, Predicted, Report, RouteReport};
use super::settings::Settings;
use super::state::{Size, Source, State, class};
use crate::encode::{Codec, Looked};
use crate::relay::EdgeTime;

/// What an edge's queue was this long ago says half as much.
const QUEUE_HALF_LIFE: f64 = 2.0;

/// The plan of all routes.
pub struct Planner {
    routes: BTreeMap<String, RoutePlan>,
    edges: Mutex<BTreeMap<Arc<str>, EdgeState>>,
    profile: Option<Arc<Profile>>,
    /// Digest of the codec's bundle, in hexadecimal.
    bundle: String,
    /// Microseconds of work that was given to the encoding threads and is not done.
    pending: AtomicU64,
    threads: usize,
    refresh: Duration,
}

struct RoutePlan {
    offer: Arc<Offer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct EdgeState {
    estimate: Estimate,
    /// Seconds of waiting for a decoder, and when that was.
    queue: Option<(f64, Instant)>,
    profile: Option<Arc<Profile>>,
}

/// A choice that was made for a request.
pub struct Chosen {
    /// Who chose, and is to be told how it went.
    pub planner: Arc<Planner>,
    /// Index of the option in the route's offer.
    pub option: usize,
    /// What is done.
    pub kind: Kind,
    /// Predicted seconds on the device, waiting apart.
    pub device: f64,
    route: String,
    body_bytes: usize,
    size: Size,
    work: f64,
    pixels: f64,
    predicted: f64,
    began: Instant,
}

/// Work that the encoding threads have been given; it counts until this is dropped.
pub struct Pending<'p>(&'p AtomicU64, u64);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Planner {
    /// A plan for these offers that knows nothing yet but the device's profile.
    #[must_use]
    pub fn new(offers: HashMap<String, Arc<Offer>>, codec: &Codec, settings: &Settings) -> Self {
        let routes = offers.into_iter().map(|(name, offer)| {
            let state = Mutex::new(State::new(&offer.choices, codec));
            (name, RoutePlan { offer, state })
        });
        Self {
            routes: routes.collect(),
            edges: Mutex::default(),
            profile: settings.profile.clone(),
            bundle: codec.bundle().digest.to_string(),
            pending: AtomicU64::new(0),
            threads: settings.threads.max(1),
            refresh: settings.refresh,
        }
    }

    /// What a route offers; none where the bundle cannot serve it.
    #[must_use]
    pub fn offer(&self, route: &str) -> Option<&Arc<Offer>> {
        Some(&self.routes.get(route)?.offer)
    }

    /// Whether any route has something to choose.
    #[must_use]
    pub fn chooses(&self) -> bool {
        let mut routes = self.routes.values();
        routes.any(|route| route.offer.choices.len() > 1)
    }

    /// Counts work for the encoding threads.
    pub fn pending(&self, chosen: &Chosen) -> Pending<'_> {
        let micros = (chosen.device * 1e6) as u64;
        self.pending.fetch_add(micros, Ordering::Relaxed);
        Pending(&self.pending, micros)
    }

    /// Chooses an option for a request that came to be known at `began`; none where no option may
    /// be taken.
    #[must_use]
    pub fn choose(
        self: &Arc<Self>,
        route: &str,
        edge: &Arc<str>,
        looked: &Looked,
        forced: Option<usize>,
        began: Instant,
    ) -> Option<Chosen> {
        let plan = self.routes.get(route)?;
        let predictions = self.predict(plan, edge, looked);
        let mut state = lock(&plan.state);
        let now = Instant::now();
        let candidates: Vec<Candidate> = predictions
            .iter()
            .zip(&state.options)
            .map(|((_, predicted), option)| Candidate {
                seconds: predicted.total_ms / 1e3,
                bytes: predicted.bytes,
                allowed: predicted.allowed,
                since: option.taken.map(|taken| now - taken),
                count: option.count,
            })
            .collect();
        let pixels = looked.pixels() as f64;
        let chooser = state.choosers.entry(class(pixels)).or_default();
        let (index, why) = match forced {
            Some(index) => (index, Why::Forced),
            None => chooser
                .choose(&candidates, self.refresh)
                // The floor keeps at least one; what is left is the device's bound.
                .or_else(|| least_device(&plan.offer, &predictions))?,
        };
        let choice = &plan.offer.choices[index];
        state.options[index].taken = Some(now);
        state.options[index].count += 1;
        metrics::counter!(
            "sidecod_device_plan_choices_total", "route" => route.to_owned(), "option" => choice.name.clone()
        )
        .increment(1);
        let (work, predicted) = &predictions[index];
        let chosen = Chosen {
            planner: self.clone(),
            option: index,
            kind: choice.kind,
            device: predicted.device_ms / 1e3,
            route: route.to_owned(),
            body_bytes: looked.sent,
            size: size(choice.kind, *work, looked),
            work: *work,
            pixels,
            predicted: predicted.total_ms / 1e3,
            began,
        };
        state.last = Some(Decision {
            edge: edge.to_string(),
            pixels: looked.pixels(),
            body_bytes: looked.sent,
            chosen: choice.name.clone(),
            why,
            options: predictions.into_iter().map(|(_, p)| p).collect(),
            measured: None,
        });
        Some(chosen)
    }

    /// For each option its work in pixels and its predicted parts.
    fn predict(&self, plan: &RoutePlan, edge: &Arc<str>, looked: &Looked) -> Vec<(f64, Predicted)> {
        let (estimate, edge_queue, edge_profile) = {
            let mut edges = lock(&self.edges);
            let state = edges.entry(edge.clone()).or_default();
            (state.estimate.clone(), state.queue(), state.profile.clone())
        };
        let device_queue = self.pending.load(Ordering::Relaxed) as f64 / 1e6 / self.threads as f64;
        let offer = &plan.offer;
        let state = lock(&plan.state);
        let pixels = looked.pixels() as f64;
        let any_upstream = state
            .upstream
            .get(edge)
            .and_then(|times| times.predict(None, pixels))
            .unwrap_or(0.0);
        let one = |(index, choice): (usize, &super::option::Choice)| {
            let option = &state.options[index];
            let work = work(choice.kind, offer, looked);
            let waits = |is: bool, seconds: f64| if is { seconds } else { 0.0 };
            let device = if choice.kind == Kind::Passthrough {
                0.0
            } else {
                let part = self.device_part(choice.kind, &choice.name);
                option.device.predict(part, work).unwrap_or(0.0)
            };
            let bytes = match choice.kind {
                Kind::Passthrough => looked.sent as f64,
                Kind::Local => 0.0,
                kind => option
                    .bytes(&size(kind, work, looked))
                    .min(looked.sent as f64),
            };
            let network = waits(choice.kind != Kind::Local, estimate.seconds(bytes));
            let part = edge_profile.as_deref().filter(|_| is_input(choice.kind));
            let part = part.and_then(|p| self.edge_part(p));
            let at_edge = match choice.kind {
                Kind::Input { .. } | Kind::Head { .. } => option
                    .edge
                    .get(edge)
                    .map_or_else(
                        || part.map(|part| part.seconds(work)),
                        |t| t.predict(part, work),
                    )
                    .unwrap_or(0.0),
                _ => 0.0,
            };
            // A tail that runs at the edge is a part of its time there.
            let upstream = match choice.kind {
                Kind::Local => 0.0,
                Kind::Head { .. } => option.tail.get().unwrap_or(0.0),
                _ => any_upstream * option.upstream.get().unwrap_or(0.0).exp(),
            };
            let device_queue = waits(choice.kind != Kind::Passthrough, device_queue);
            let decoded = matches!(choice.kind, Kind::Input { .. } | Kind::Head { .. });
            let edge_queue = waits(decoded, edge_queue);
            let total = device_queue + device + network + edge_queue + at_edge + upstream;
            let bounded = offer.max_device_ms.is_none_or(|most| device * 1e3 <= most);
            // Only pictures have other options, and what is known to be kept is of pictures.
            let keeps = if looked.pixels() > 0 {
                choice.fidelity.keeps(&offer.floor)
            } else {
                matches!(choice.kind, Kind::Input { .. } | Kind::Passthrough)
            };
            let predicted = Predicted {
                option: choice.name.clone(),
                allowed: keeps && bounded,
                device_queue_ms: device_queue * 1e3,
                device_ms: device * 1e3,
                bytes,
                network_ms: network * 1e3,
                edge_queue_ms: edge_queue * 1e3,
                edge_ms: at_edge * 1e3,
                upstream_ms: upstream * 1e3,
                total_ms: total * 1e3,
            };
            (work, predicted)
        };
        offer.choices.iter().enumerate().map(one).collect()
    }

    fn device_part(&self, kind: Kind, name: &str) -> Option<&Part> {
        let bundle = is_input(kind).then_some(&self.bundle[..]);
        self.profile.as_ref()?.part(name, bundle)
    }

    fn edge_part<'p>(&self, profile: &'p Profile) -> Option<&'p Part> {
        profile.part(RESTORE, Some(&self.bundle))
    }

    /// Takes what the device needed for an option, and the bytes that came out.
    pub fn coded(&self, chosen: &Chosen, took: Duration, bytes: usize) {
        let Some(plan) = self.routes.get(&chosen.route) else {
            return;
        };
        let name = &plan.offer.choices[chosen.option].name;
        let part = self.device_part(chosen.kind, name);
        let option = &mut lock(&plan.state).options[chosen.option];
        option.device.observe(part, chosen.work, took.as_secs_f64());
        option.observe_bytes(&chosen.size, bytes as f64);
    }

    /// Takes that an option could not be carried out: for this size it saves no bytes.
    pub fn not_coded(&self, chosen: &Chosen) {
        if let Some(plan) = self.routes.get(&chosen.route) {
            let option = &mut lock(&plan.state).options[chosen.option];
            option.observe_bytes(&chosen.size, chosen.body_bytes as f64);
        }
    }

    /// Takes what a request of `bytes` took until the head of its answer, `spent` of it at the edge.
    pub fn crossed(&self, edge: &Arc<str>, bytes: u64, took: Duration, spent: &EdgeTime) {
        let now = Instant::now();
        let mut edges = lock(&self.edges);
        let state = edges.entry(edge.clone()).or_default();
        let network = took.saturating_sub(spent.total());
        state.estimate.observe(now, bytes, network);
        if let Some(queue) = spent.queue {
            let before = state.queue();
            let queue = queue.as_secs_f64();
            state.queue = Some((queue.max(f64::midpoint(before, queue)), now));
        }
    }

    /// Takes that a request was answered: `bytes` crossed in `took`, `spent` of it at the edge, which
    /// need not be the one that it was chosen for.
    pub fn answered(
        &self,
        chosen: &Chosen,
        edge: &Arc<str>,
        bytes: u64,
        took: Duration,
        spent: &EdgeTime,
    ) {
        let Some(plan) = self.routes.get(&chosen.route) else {
            return;
        };
        let profile = lock(&self.edges)
            .get(edge)
            .and_then(|edge| edge.profile.clone());
        let part = profile.as_deref().and_then(|p| self.edge_part(p));
        let mut state = lock(&plan.state);
        let at_edge = spent.decode + spent.render;
        let upstream = spent.upstream.as_secs_f64().max(1e-6);
        if matches!(chosen.kind, Kind::Head { .. }) {
            // The model server has run nothing, or another model.
            state.options[chosen.option].tail.add(upstream);
        } else {
            let any = state.upstream.entry(edge.clone()).or_default();
            if let Some(expected) = any.predict(None, chosen.pixels) {
                let ratio = (upstream / expected.max(1e-6)).clamp(0.25, 4.0).ln();
                state.options[chosen.option].upstream.add(ratio);
            }
            let any = state.upstream.entry(edge.clone()).or_default();
            any.observe(None, chosen.pixels, upstream);
        }
        let part = part.filter(|_| is_input(chosen.kind));
        let option = &mut state.options[chosen.option];
        if matches!(chosen.kind, Kind::Input { .. } | Kind::Head { .. }) {
            let times = option.edge.entry(edge.clone()).or_default();
            times.observe(part, chosen.work, at_edge.as_secs_f64());
        }
        let total = chosen.began.elapsed().as_secs_f64();
        let error = (chosen.predicted - total).abs() / total.max(1e-6);
        option.error.add(error);
        let name = &plan.offer.choices[chosen.option].name;
        if let Some(last) = state.last.as_mut().filter(|last| last.chosen == *name) {
            last.measured = Some(Measured {
                device_ms: total * 1e3 - took.as_secs_f64() * 1e3,
                bytes,
                network_ms: took.saturating_sub(spent.total()).as_secs_f64() * 1e3,
                edge_ms: (at_edge + spent.queue.unwrap_or_default()).as_secs_f64() * 1e3,
                upstream_ms: upstream * 1e3,
                total_ms: total * 1e3,
                predicted_ms: chosen.predicted * 1e3,
            });
        }
    }

    /// Whether nothing crossed to an edge for so long.
    #[must_use]
    pub fn is_idle(&self, edge: &Arc<str>, idle: Duration) -> bool {
        let edges = lock(&self.edges);
        let last = edges.get(edge).and_then(|state| state.estimate.last());
        last.is_none_or(|last| last.elapsed() >= idle)
    }

    /// Whether the profile of an edge is known.
    #[must_use]
    pub fn has_profile(&self, edge: &Arc<str>) -> bool {
        let edges = lock(&self.edges);
        edges.get(edge).is_some_and(|state| state.profile.is_some())
    }

    /// Takes an edge's profile.
    pub fn edge_profile(&self, edge: &Arc<str>, profile: Profile) {
        let mut edges = lock(&self.edges);
        edges.entry(edge.clone()).or_default().profile = Some(Arc::new(profile));
    }

    /// All that is known.
    #[must_use]
    pub fn report(&self) -> Report {
        let of = |profile: &Profile| format!("{}, {}", profile.machine, profile.date);
        let edges = lock(&self.edges);
        let edges = edges.iter().map(|(name, state)| report::Edge {
            edge: name.to_string(),
            rtt_ms: state.estimate.rtt() * 1e3,
            bandwidth_mbit: state.estimate.bandwidth() * 8.0 / 1e6,
            observations: state.estimate.observations(),
            queue_ms: state.queue() * 1e3,
            profile: state.profile.as_deref().map(of),
        });
        let routes = self.routes.iter().map(|(name, plan)| {
            let state = lock(&plan.state);
            let options = plan.offer.choices.iter().zip(&state.options);
            RouteReport {
                route: name.clone(),
                floor: plan.offer.floor,
                max_device_ms: plan.offer.max_device_ms,
                options: options
                    .map(|(choice, option)| OptionReport {
                        option: choice.name.clone(),
                        fidelity: choice.fidelity,
                        keeps_floor: choice.fidelity.keeps(&plan.offer.floor),
                        taken: option.count,
                        error: option.error.get(),
                    })
                    .collect(),
                last: state.last.clone(),
            }
        });
        Report {
            profile: self.profile.as_deref().map(of),
            queued_ms: self.pending.load(Ordering::Relaxed) as f64 / 1e3,
            edges: edges.collect(),
            routes: routes.collect(),
        }
    }
}

impl EdgeState {
    /// Seconds that a frame is expected to wait for a decoder now.
    fn queue(&self) -> f64 {
        self.queue.map_or(0.0, |(seconds, when)| {
            seconds * 0.5_f64.powf(when.elapsed().as_secs_f64() / QUEUE_HALF_LIFE)
        })
    }
}

/// The option with the least work on the device, of those that keep the floor.
fn least_device(offer: &Offer, predictions: &[(f64, Predicted)]) -> Option<(usize, Why)> {
    let choices = offer.choices.iter().enumerate();
    let keeps = choices.filter(|(_, choice)| choice.fidelity.keeps(&offer.floor));
    let device = |index: usize| predictions[index].1.device_ms;
    let least = keeps.min_by(|a, b| device(a.0).total_cmp(&device(b.0)));
    least.map(|(index, _)| (index, Why::Last))
}

/// Pixels that an option has to work through.
fn work(kind: Kind, offer: &Offer, looked: &Looked) -> f64 {
    let max_side = match kind {
        Kind::Input { .. } => offer.coding.max_side,
        _ => 0,
    };
    let coded = looked.sizes.iter().map(|&(width, height)| {
        let (width, height) = coded_size(width, height, max_side);
        u64::from(width) * u64::from(height)
    });
    coded.sum::<u64>() as f64
}

/// What the bytes of an option's code are in proportion to. Those of a feature are always the same.
fn size(kind: Kind, work: f64, looked: &Looked) -> Size {
    if let Kind::Head { .. } = kind {
        return Size {
            source: Source::Numbers,
            pixels: 1.0,
            bytes: 1.0,
        };
    }
    let source = match looked.found.inputs.first().map(|input| input.form) {
        Some(Form::File { media, .. }) => Source::Photo(media),
        Some(Form::Sound(_)) => Source::Sound,
        Some(Form::Tensor(_)) | None => Source::Numbers,
    };
    let pixels = looked.pixels() as f64;
    // Of sounds, which have no pixels, all is coded.
    let share = if pixels > 0.0 { work / pixels } else { 1.0 };
    Size {
        source,
        pixels: work,
        bytes: looked.sent as f64 * share,
    }
}

fn is_input(kind: Kind) -> bool {
    matches!(kind, Kind::Input { .. })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
