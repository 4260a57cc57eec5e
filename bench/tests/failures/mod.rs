//! The programs, a photo whose answer is known, and waiting for what a test needs.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sidecod_bench::chaos::app::{Answer, Ask};
use sidecod_bench::chaos::photos;
use sidecod_bench::chaos::site::{Part, Site};
use sidecod_bench::client::Client;
use sidecod_bench::stack::{until, workspace};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Longer than anything takes on a machine that does other things as well.
pub const LONG: Duration = Duration::from_secs(150);
/// A route whose requests are sent once.
pub const ONCE: &str = "route=[{name=\"once\",path=\"/predictions/*\",idempotent=false}]";
/// A route that does not wait long.
pub const SHORT: &str = "route=[{name=\"short\",path=\"/predictions/*\",timeout_ms=3000}]";

const PATH: &str = "/predictions/efficientnet-lite0";
const GOLDFISH: u64 = 1;

/// The running programs.
pub struct Bench {
    pub site: Site,
    folder: TempDir,
    client: Client,
}

impl Bench {
    /// Starts them, and waits until a photo crosses as a code.
    pub async fn start(device: &[&str], edge: &[&str]) -> Self {
        let bench = Self::start_as(device, edge).await;
        bench.until_coded().await;
        bench
    }

    /// Starts them.
    pub async fn start_as(device: &[&str], edge: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let site = Site::start(&journal(&folder), device, edge).await;
        Self::of(folder, site)
    }

    /// Starts them with an edge more.
    pub async fn start_with_two_edges() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let site = Site::start_with_two_edges(&journal(&folder)).await;
        Self::of(folder, site)
    }

    fn of(folder: TempDir, site: anyhow::Result<Site>) -> Self {
        Self {
            site: site.expect("the programs"),
            folder,
            client: Client::default(),
        }
    }

    fn device(&self) -> SocketAddr {
        let address = self.site.device.address("reverse");
        address.parse().expect("an address")
    }

    /// Begins a request with a photo of a goldfish.
    pub fn begin(&self) -> JoinHandle<Answer> {
        self.begin_with("goldfish.jpg", "image/jpeg")
    }

    /// Begins a request with a photo of 1920x1080 pixels.
    pub fn begin_large(&self) -> JoinHandle<Answer> {
        self.begin_with("komodo-dragon-1080p.jpg", "image/jpeg")
    }

    fn begin_with(&self, photo: &str, content_type: &'static str) -> JoinHandle<Answer> {
        let path = workspace().join("examples/photos").join(photo);
        let body = std::fs::read(path).expect("the photo");
        let device = self.device();
        tokio::spawn(async move {
            let ask = Ask {
                id: "test".to_owned(),
                path: PATH,
                content_type,
                body: &body,
            };
            ask.send(device, LONG).await.expect("one whole answer")
        })
    }

    /// Sends a request that the model must answer.
    pub async fn by_model(&self) {
        self.begin().await.expect("an answer").by_model();
    }

    /// Answers of the model that its journal has.
    pub fn worked(&self) -> usize {
        let journal = std::fs::read_to_string(journal(&self.folder));
        let journal = journal.unwrap_or_default();
        // The first was to see that all is well.
        journal.lines().count().saturating_sub(1)
    }

    /// Requests that ended so, by the device's metrics.
    pub async fn outcomes(&self, outcome: &str) -> u64 {
        let label = format!("outcome=\"{outcome}\"");
        let labels = [&label[..]];
        let count = self.of_device("sidecod_device_requests_total", &labels);
        count.await as u64
    }

    async fn of_device(&self, name: &str, labels: &[&str]) -> f64 {
        let page = format!("http://{}/metrics", self.site.device.address("admin"));
        let value = self.client.metric(&page, name, labels).await;
        value.expect("the device's metrics")
    }

    async fn of_edge(&self, edge: &Part, name: &str, labels: &[&str]) -> f64 {
        let edge = edge.running().expect("the edge");
        let page = format!("http://{}/metrics", edge.address("admin"));
        let value = self.client.metric(&page, name, labels).await;
        value.expect("the edge's metrics")
    }

    /// Sends requests until one crosses as a code.
    pub async fn until_coded(&self) {
        let before = self.outcomes("code").await;
        wait("a photo to cross as a code", async || {
            self.by_model().await;
            self.outcomes("code").await > before
        })
        .await;
    }

    /// Waits until the edge has as much of something.
    pub async fn until_edge(&self, name: &str, value: f64) {
        wait(name, async || {
            self.of_edge(&self.site.edge, name, &[]).await >= value
        })
        .await;
    }

    /// Waits until the edge has decoded one photo more than at the start, and asks the model.
    pub async fn until_edge_has_decoded(&self) {
        let coded = self.outcomes("code").await;
        wait("the photo to be decoded", async || {
            let name = "sidecod_edge_step_seconds_count";
            self.of_edge(&self.site.edge, name, &["step=\"render\""])
                .await
                > coded as f64
        })
        .await;
    }

    /// Waits until so many edges can be used.
    pub async fn until_edge_up(&self, count: f64) {
        wait("edges", async || {
            self.of_device("sidecod_device_edge_up", &[]).await >= count
        })
        .await;
    }

    /// Sends requests until both edges have had one.
    pub async fn until_both_edges_work(&self) {
        self.until_edge_up(2.0).await;
        wait("both edges to work", async || {
            let requests: Vec<_> = (0..4).map(|_| self.begin()).collect();
            for request in requests {
                request.await.expect("an answer").by_model();
            }
            let name = "sidecod_edge_requests_total";
            let second = self.site.second.as_ref().expect("a second edge");
            self.of_edge(&self.site.edge, name, &[]).await > 0.0
                && self.of_edge(second, name, &[]).await > 0.0
        })
        .await;
    }

    /// Waits until something has arrived at the link that it does not pass on.
    pub async fn until_link_holds(&self) {
        wait("bytes on the link", async || self.site.link.held() > 0).await;
    }

    /// Bounds the file descriptors of the device sidecar.
    pub fn limit_files_of_device(&self, count: usize) {
        let process = self.site.device.id().to_string();
        let status = Command::new("prlimit")
            .args(["--pid", &process, &format!("--nofile={count}:{count}")])
            .status();
        assert!(status.expect("prlimit, of util-linux").success());
    }

    /// A connection to the device on which nothing is said.
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.device()).expect("a connection")
    }
}

fn journal(folder: &TempDir) -> PathBuf {
    folder.path().join("journal")
}

/// What a test says of an answer.
pub trait Says {
    /// It is the model's, and right.
    fn by_model(&self);
}

impl Says for Answer {
    fn by_model(&self) {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!((self.status, &self.error), (200, &None), "{text}");
        let class = photos::class(&self.body).expect("a class");
        // 48 is the Komodo dragon.
        assert!([GOLDFISH, 48].contains(&class), "{text}");
    }
}

/// Status and kind of an error of a sidecar.
pub fn from_sidecar(answer: &Answer) -> (u16, &str) {
    assert_eq!(answer.content_type, "application/problem+json");
    let kind = answer.error.as_deref().expect("sidecod-error");
    (answer.status, kind)
}

/// Waits until something is so.
async fn wait(what: &str, so: impl AsyncFnMut() -> bool) {
    until(what, LONG, so).await.expect("what was waited for");
}
