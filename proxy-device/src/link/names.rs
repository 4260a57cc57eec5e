//! The names of the edges, and the addresses behind them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use sidecod_sidecar::upstream::BaseUrl;
use tokio::net::lookup_host;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tower::discover::Change;
use tower::load::{CompleteOnResponse, PeakEwma};

use super::connect::Connect;
use super::edge::{Edge, Endpoint};

/// How often names are resolved anew.
const AGAIN: Duration = Duration::from_secs(30);
/// The same while no edge can be used: it may have moved.
const SOON: Duration = Duration::from_secs(1);
/// Time until the answer that an edge is taken to need before it has answered.
const FIRST_GUESS: Duration = Duration::from_millis(500);
/// Time in which what was measured loses its weight.
const DECAY: Duration = Duration::from_secs(10);

/// Edges that came and went, for the balancer.
pub(super) struct Changes(mpsc::UnboundedReceiver<Change<SocketAddr, Weighed>>);

type Weighed = PeakEwma<Endpoint, CompleteOnResponse>;

impl Stream for Changes {
    type Item = Result<Change<SocketAddr, Weighed>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|change| change.map(Ok))
    }
}

/// What is known of all edges.
#[derive(Default)]
pub(super) struct Known(Mutex<Listed>);

#[derive(Default)]
struct Listed {
    edges: BTreeMap<SocketAddr, Arc<Edge>>,
    /// Whether every name was asked for once.
    asked: bool,
    /// Why a name has no address.
    unresolved: BTreeMap<String, String>,
}

impl Known {
    /// Why no edge can be used; none if one can, or if that is not known yet.
    pub fn all_down(&self) -> Option<String> {
        let listed = self.lock();
        if !listed.asked {
            return None;
        }
        let mut reasons: Vec<String> = listed.unresolved.values().cloned().collect();
        for edge in listed.edges.values() {
            reasons.push(edge.down()?);
        }
        Some(reasons.join("; "))
    }

    /// The edge that answered last, of those that can be used.
    pub fn likely(&self) -> Option<Arc<str>> {
        let listed = self.lock();
        let usable = listed.edges.values().filter(|edge| edge.down().is_none());
        let last = usable.max_by_key(|edge| edge.answered());
        last.map(|edge| edge.name())
    }

    fn lock(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves the names as long as the task lives.
pub(super) struct Names {
    urls: Vec<BaseUrl>,
    connect: Connect,
    known: Arc<Known>,
    changes: watch::Sender<()>,
    balancer: mpsc::UnboundedSender<Change<SocketAddr, Weighed>>,
    /// The addresses of each when it was last resolved.
    addresses: Vec<Vec<SocketAddr>>,
}

impl Names {
    /// What resolves `urls`, and the edges that it finds. `changes` hears of what becomes of them.
    pub fn new(
        urls: Vec<BaseUrl>,
        connect: Connect,
        known: Arc<Known>,
        changes: watch::Sender<()>,
    ) -> (Self, Changes) {
        let (balancer, receiver) = mpsc::unbounded_channel();
        let names = Self {
            addresses: vec![Vec::new(); urls.len()],
            urls,
            connect,
            known,
            changes,
            balancer,
        };
        (names, Changes(receiver))
    }

    /// Resolves them again and again.
    pub async fn keep(mut self) {
        let mut changed = self.changes.subscribe();
        loop {
            let begin = Instant::now();
            self.resolve().await;
            self.update();
            changed.mark_unchanged();
            loop {
                let wait = if self.known.all_down().is_some() {
                    SOON
                } else {
                    AGAIN
                };
                tokio::select! {
                    () = sleep_until(begin + wait) => break,
                    _ = changed.changed() => {}
                }
            }
        }
    }

    async fn resolve(&mut self) {
        for (url, known) in self.urls.iter().zip(&mut self.addresses) {
            let name = url.authority();
            let found = lookup_host(url.host_and_port()).await;
            let found = found.map(Iterator::collect::<Vec<_>>);
            let mut listed = self.known.lock();
            match found {
                Ok(addresses) if !addresses.is_empty() => {
                    listed.unresolved.remove(name);
                    *known = addresses;
                }
                // What it had is better than nothing.
                _ if !known.is_empty() => {}
                failed => {
                    let error = failed.map_or_else(|e| e.to_string(), |_| "no address".to_owned());
                    let reason = format!("{name}: {error}");
                    if listed.unresolved.insert(name.to_owned(), reason).is_none() {
                        tracing::warn!(edge = name, error, "the edge's name cannot be resolved");
                    }
                }
            }
        }
    }

    /// Tells the balancer of edges that are new or gone.
    fn update(&self) {
        let mut listed = self.known.lock();
        listed.asked = true;
        let wanted: BTreeMap<SocketAddr, &BaseUrl> = self
            .urls
            .iter()
            .zip(&self.addresses)
            .flat_map(|(url, addresses)| addresses.iter().map(move |address| (*address, url)))
            .collect();
        listed.edges.retain(|address, _| {
            let stays = wanted.contains_key(address);
            if !stays {
                tracing::info!(edge = %address, "no longer listed");
                let _ = self.balancer.send(Change::Remove(*address));
            }
            stays
        });
        for (address, url) in wanted {
            listed.edges.entry(address).or_insert_with(|| {
                let (connect, changes) = (self.connect.clone(), self.changes.clone());
                let endpoint = Endpoint::start(url.clone(), address, connect, changes);
                let edge = endpoint.edge();
                let decay = DECAY.as_nanos() as f64;
                let done = CompleteOnResponse::default();
                let weighed = PeakEwma::new(endpoint, FIRST_GUESS, decay, done);
                let _ = self.balancer.send(Change::Insert(address, weighed));
                edge
            });
        }
        drop(listed);
        self.changes.send_replace(());
    }
}
