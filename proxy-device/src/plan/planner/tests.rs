use super::*;
use crate::config::Route;
use bytes::Bytes;
use http::HeaderMap;
use sidecod_wire::limits::Limits;
use sidecod_wire::media::{Color, MediaType, Picture, encode};

const RTT: f64 = 0.03;
const UPSTREAM: f64 = 0.02;
/// Seconds on the device, bytes and seconds at the edge of the coded and the classical option.
const OPTIONS: [(f64, f64, f64); 2] = [(0.015, 6000.0, 0.06), (0.004, 16_000.0, 0.0)];

/// A body that is one input.
fn looked(file: Bytes) -> Looked {
    let shape = sidecod_wire::slot::Preset::Auto.shape();
    Looked::new(&HeaderMap::new(), file, 1 << 20, &shape, &Limits::default()).unwrap()
}

/// A planner whose requests take what a made world says.
struct World {
    planner: Arc<Planner>,
    looked: Looked,
    edge: Arc<str>,
}

impl World {
    fn new(lines: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../onnx/codecs/photo");
        let codec = Codec::open(folder.as_ref(), Limits::default()).unwrap();
        let route = format!(
            "name = \"r\"\npath = \"/x\"\noptions = [\"photo:q3\", \"jpeg:75\", \"passthrough\"]\n{lines}"
        );
        let route: Route = toml::from_str(&route).unwrap();
        let offer = Offer::new(&route, &codec).unwrap();
        let offers = HashMap::from([("r".to_owned(), Arc::new(offer))]);
        let rgb = (0..224 * 224 * 3_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 27) as u8);
        let picture = Picture {
            width: 224,
            height: 224,
            color: Color::Rgb,
            orientation: 1,
            rgb: rgb.collect(),
        };
        let file = Bytes::from(encode(&picture, MediaType::Jpeg).unwrap());
        Self {
            planner: Arc::new(Planner::new(offers, &codec, &Settings::default())),
            looked: looked(file),
            edge: "edge".into(),
        }
    }

    /// Seconds on the device, bytes, seconds at the edge, and seconds in all.
    fn truth(&self, option: usize, megabits: f64) -> (f64, f64, f64, f64) {
        let whole = (0.0, self.looked.sent as f64, 0.0);
        let (device, bytes, edge) = OPTIONS.get(option).copied().unwrap_or(whole);
        let total = device + RTT + bytes * 8.0 / (megabits * 1e6) + edge + UPSTREAM;
        (device, bytes, edge, total)
    }

    fn best(&self, megabits: f64) -> usize {
        let seconds = |option: usize| self.truth(option, megabits).3;
        (0..3)
            .min_by(|a, b| seconds(*a).total_cmp(&seconds(*b)))
            .unwrap()
    }

    /// Sends a request and gives the option that it took.
    async fn request(&self, megabits: f64) -> usize {
        let began = Instant::now();
        let chosen = self
            .planner
            .choose("r", &self.edge, &self.looked, None, began);
        let chosen = chosen.unwrap();
        let (device, bytes, edge, total) = self.truth(chosen.option, megabits);
        let seconds = Duration::from_secs_f64;
        tokio::time::advance(seconds(device)).await;
        if chosen.kind != Kind::Passthrough {
            self.planner.coded(&chosen, seconds(device), bytes as usize);
        }
        let took = seconds(total - device);
        tokio::time::advance(took).await;
        let spent = EdgeTime {
            queue: (chosen.option == 0).then_some(Duration::ZERO),
            decode: seconds(edge),
            upstream: seconds(UPSTREAM),
            ..EdgeTime::default()
        };
        self.planner.crossed(&self.edge, bytes as u64, took, &spent);
        self.planner
            .answered(&chosen, &self.edge, bytes as u64, took, &spent);
        tokio::time::advance(Duration::from_millis(50)).await;
        chosen.option
    }

    fn last(&self) -> Decision {
        self.planner.report().routes.remove(0).last.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn it_finds_the_best_at_every_rate_and_predicts_it() {
    for megabits in [0.3, 1.0, 5.0, 20.0, 100.0] {
        let world = World::new("");
        for _ in 0..12 {
            world.request(megabits).await;
        }
        let best = world.best(megabits);
        let mut wrong = 0;
        for _ in 0..20 {
            let option = world.request(megabits).await;
            let close = world.truth(option, megabits).3 <= world.truth(best, megabits).3 * 1.1;
            wrong += usize::from(!close);
            let measured = world.last().measured.unwrap();
            let error = (measured.predicted_ms / measured.total_ms - 1.0).abs();
            assert!(error < 0.15, "{megabits} Mbit/s: {:#?}", world.last());
        }
        // One may be a refresh.
        assert!(
            wrong <= 1,
            "{megabits} Mbit/s: {wrong} of 20 were not near option {best}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn it_switches_within_three_requests() {
    let world = World::new("");
    for _ in 0..20 {
        world.request(20.0).await;
    }
    assert_ne!(world.best(20.0), world.best(0.5));
    let mut taken = Vec::new();
    for _ in 0..10 {
        taken.push(world.request(0.5).await);
    }
    assert!(
        taken[3..].iter().all(|option| *option == world.best(0.5)),
        "{taken:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_bound_of_the_device_and_the_floor_hold() {
    let world = World::new("max_device_ms = 8");
    let mut taken = [0; 3];
    for _ in 0..30 {
        taken[world.request(0.3).await] += 1;
    }
    assert!(taken[0] <= 1, "known only after it was tried: {taken:?}");
    let world = World::new("floor = { agreement = 0.95 }");
    for _ in 0..10 {
        assert_eq!(world.request(0.3).await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn of_options_a_sound_has_the_codec_and_passthrough() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/speech/young-man.wav"
    );
    // What it asks for only passthrough keeps, of photos.
    let world = World {
        looked: looked(std::fs::read(file).unwrap().into()),
        ..World::new("floor = { agreement = 0.99 }")
    };
    let mut taken = [0; 3];
    for _ in 0..20 {
        taken[world.request(0.5).await] += 1;
    }
    assert!(taken[0] >= 15 && taken[1] == 0, "{taken:?}");
    // As many bytes as before, by what was seen and not by pixels.
    let codec = &world.last().options[0];
    assert!((codec.bytes - OPTIONS[0].1).abs() < 1.0, "{codec:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_counts() {
    let world = World::new("");
    for _ in 0..12 {
        world.request(0.5).await;
    }
    let now = Instant::now();
    let chosen = world
        .planner
        .choose("r", &world.edge, &world.looked, Some(0), now);
    let chosen = chosen.unwrap();
    let waiting: Vec<_> = (0..200).map(|_| world.planner.pending(&chosen)).collect();
    let crowded = world
        .planner
        .choose("r", &world.edge, &world.looked, Some(2), now);
    assert_eq!(crowded.unwrap().kind, Kind::Passthrough);
    let options = world.last().options;
    assert!(options[0].device_queue_ms > 1000.0 && options[2].device_queue_ms < 1.0);
    drop(waiting);
    assert!(world.planner.report().queued_ms < 1e-9);
}
