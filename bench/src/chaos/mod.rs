//! Many apps, while everything between them and the model breaks at random.
//!
//! Real programs, real photos. Edge and model server are killed, frozen and started again, the link
//! is cut, reset and made to swallow everything; the device sidecar runs on, as it stands beside the
//! app. Every request must be answered, once, by the model with the right class or by a sidecar with
//! a documented error.

pub mod app;
pub mod memory;
pub mod photos;
pub mod relay;
mod report;
pub mod site;
mod trouble;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use app::Ask;
use photos::Photo;
pub use report::{DOCUMENTED, Report, print};
use site::Site;
use trouble::Trouble;

const PATH: &str = "/predictions/efficientnet-lite0";
/// Milliseconds that the device's routes give a request.
const ROUTE_MS: u64 = 20_000;
/// Time after which a request counts as lost: the route's, and what reading and writing take on a
/// busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// An app waits up to this long before its next request.
const LONGEST_THOUGHT: f64 = 2.0;
/// Side of the photos, in pixels.
const SIDE: u32 = 224;

/// What to do, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Seconds of trouble.
    pub seconds: u64,
    /// Apps at a time.
    pub clients: u64,
    /// What decides over everything that is left to chance.
    pub seed: u64,
}

/// How a request may be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its photo is coded, and it may be sent again.
    Again,
    /// Its photo is coded, and the model server must not get it twice.
    Once,
    /// No route takes it: it is streamed.
    Streamed,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Again, Self::Once, Self::Streamed];

    fn name(self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::Once => "once",
            Self::Streamed => "streamed",
        }
    }

    /// The media type that decides over the route, and the body.
    fn body(self, photo: &Photo) -> (&'static str, &[u8]) {
        match self {
            Self::Again => ("image/jpeg", &photo.jpeg),
            Self::Once => ("image/png", &photo.png),
            Self::Streamed => ("application/octet-stream", &photo.jpeg),
        }
    }
}

/// Makes trouble, and tells what became of the requests.
///
/// # Errors
/// If a program does not start, or nothing works even before the trouble.
pub async fn measure(options: Options) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let journal = folder.path().join("journal");
    let routes = format!(
        "route=[{{name=\"again\",path=\"/predictions/*\",content_type=[\"image/jpeg\"],timeout_ms={ROUTE_MS}}},\
         {{name=\"once\",path=\"/predictions/*\",content_type=[\"image/png\"],timeout_ms={ROUTE_MS},idempotent=false}}]"
    );
    let mut site = Site::start(&journal, &["--set", &routes], &[]).await?;
    let photos = learn(&site).await?;
    let device: SocketAddr = site.device.address("reverse").parse()?;
    let report = Mutex::new(Report::default());

    let end = Instant::now() + Duration::from_secs(options.seconds);
    let trouble = Trouble::new(options.seed, end);
    let (device_process, edge_process) = (site.device.id(), site.edge.process());
    let apps = apps(options, end, device, &photos, &report);
    let Site {
        server, edge, link, ..
    } = &mut site;
    let making = trouble.make(edge, link, server);
    let (apps, making, memory) = tokio::join!(
        async { timeout(Duration::from_secs(options.seconds) + PATIENCE * 2, apps).await },
        making,
        memory::until(end, device_process, edge_process),
    );
    apps.context("the apps have not ended")?;
    making?;

    let mut report = report.into_inner().unwrap_or_default();
    report.memory = memory;
    report.troubles = trouble.counts();
    report.recovered_ms = recover(&site, device, &photos).await?;
    report.read_journal(&journal)?;
    Ok(report)
}

/// Asks the model for each photo's class, directly and through both sidecars.
async fn learn(site: &Site) -> Result<Vec<Photo>> {
    let direct: SocketAddr = site.server_address().parse()?;
    let device: SocketAddr = site.device.address("reverse").parse()?;
    let mut photos = photos::load(SIDE)?;
    let mut kept = Vec::new();
    for mut photo in photos.drain(..) {
        let mut classes = Vec::new();
        for (to, kind) in [
            (direct, Kind::Streamed),
            (device, Kind::Again),
            (device, Kind::Once),
        ] {
            let id = format!("learn-{}-{}", kind.name(), photo.name);
            let answer = ask(&photo, kind, id).send(to, PATIENCE).await?;
            ensure!(answer.status == 200, "{to} answers {}", answer.status);
            classes.push(photos::class(&answer.body)?);
        }
        photo.class = classes[0];
        // A code that changes the answer tells nothing about trouble.
        if classes.iter().all(|class| *class == photo.class) {
            kept.push(photo);
        }
    }
    photos::distinct(kept)
}

fn ask(photo: &Photo, kind: Kind, id: String) -> Ask<'_> {
    let (content_type, body) = kind.body(photo);
    Ask {
        id,
        path: PATH,
        content_type,
        body,
    }
}

/// Runs the apps until the end of the trouble, and each to the end of its last request.
async fn apps(
    options: Options,
    end: Instant,
    device: SocketAddr,
    photos: &[Photo],
    report: &Mutex<Report>,
) {
    let one = |client: u64| async move {
        let mut chance = fastrand::Rng::with_seed(options.seed.wrapping_add(client));
        let mut count = 0;
        while Instant::now() < end {
            sleep(Duration::from_secs_f64(chance.f64() * LONGEST_THOUGHT)).await;
            let photo = &photos[chance.usize(..photos.len())];
            let kind = Kind::ALL[chance.usize(..Kind::ALL.len())];
            let id = format!("{}-{client}-{count}", kind.name());
            count += 1;
            let start = Instant::now();
            let answer = ask(photo, kind, id.clone()).send(device, PATIENCE).await;
            let took = start.elapsed();
            if let Ok(mut report) = report.lock() {
                report.note(&id, photo, answer, took);
            }
        }
    };
    join_all((0..options.clients).map(one)).await;
}

/// How long it takes after the trouble until a photo crosses as a code again.
async fn recover(site: &Site, device: SocketAddr, photos: &[Photo]) -> Result<u64> {
    site.ready().await?;
    let client = crate::client::Client::default();
    let page = format!("http://{}/metrics", site.device.address("admin"));
    let coded = || {
        client.metric(
            &page,
            "sidecod_device_requests_total",
            &["outcome=\"code\""],
        )
    };
    let (start, before) = (Instant::now(), coded().await?);
    let mut count = 0;
    while coded().await? <= before {
        ensure!(
            start.elapsed() < Duration::from_mins(1),
            "no photo crosses as a code a minute after the trouble"
        );
        let ask = ask(&photos[0], Kind::Again, format!("after-{count}"));
        ask.send(device, PATIENCE).await?;
        count += 1;
    }
    Ok(start.elapsed().as_millis() as u64)
}
