//! The codec in use: that of a local folder, or the edge's own, which is fetched by its digest, kept
//! on disk, and changed when the edge decodes it no more.

mod cache;
mod fetch;
mod files;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sidecod_sidecar::readiness::Blocker;
use sidecod_wire::bundle::Digest;
use sidecod_wire::limits::Limits;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::config::Route;
use crate::encode::Codec;
use crate::link::Link;
use crate::plan;
use crate::plan::option::Offer;
use crate::plan::planner::Planner;

pub use cache::Cache;
pub use fetch::{FetchError, choose, describe};
pub use files::{Files, FilesError};

/// Pauses after the edge could not be asked: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// A codec with what the routes make of it.
pub struct Active {
    /// The codec.
    pub codec: Arc<Codec>,
    /// Chooses among what the routes offer with it.
    pub planner: Arc<Planner>,
}

impl Active {
    /// A codec for these routes, and what is wrong with those that it cannot serve.
    #[must_use]
    pub fn new(
        codec: &Arc<Codec>,
        routes: &[Route],
        settings: &plan::Settings,
    ) -> (Self, Vec<String>) {
        let codec = Arc::new(
            Codec::clone(codec)
                .with(settings.parts.clone())
                .on(settings.threads),
        );
        let (mut offers, mut faults) = (HashMap::new(), Vec::new());
        for route in routes {
            match Offer::new(route, &codec) {
                Ok(offer) => {
                    offers.insert(route.name.clone(), Arc::new(offer));
                }
                Err((key, fault)) => faults.push(format!("route {}: {key}: {fault}", route.name)),
            }
        }
        let planner = Arc::new(Planner::new(offers, &codec, settings));
        (Self { codec, planner }, faults)
    }

    /// What a route offers; none where the codec cannot serve it.
    #[must_use]
    pub fn offer(&self, route: &Route) -> Option<Arc<Offer>> {
        self.planner.offer(&route.name).cloned()
    }

    fn digest(&self) -> Digest {
        self.codec.bundle().digest
    }
}

/// The codec that requests are coded with; none while there is none that the edge decodes.
#[derive(Default)]
pub struct InUse {
    active: ArcSwapOption<Active>,
    refused: Notify,
}

impl InUse {
    /// The codec, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Active>> {
        self.active.load_full()
    }

    /// Uses another one from now on.
    pub fn set(&self, active: Active) {
        metrics::gauge!("sidecod_device_bundle_in_use").set(1.0);
        self.active.store(Some(Arc::new(active)));
    }

    fn clear(&self) {
        metrics::gauge!("sidecod_device_bundle_in_use").set(0.0);
        self.active.store(None);
    }

    /// The edge does not decode the bundle that a frame was made with.
    pub fn refused(&self) {
        metrics::counter!("sidecod_device_bundle_refused_total").increment(1);
        self.refused.notify_one();
    }
}

/// Where the edge's bundle comes from and goes to.
pub struct Keeper {
    /// Name of the edge's codec; the first where none is named.
    pub name: Option<String>,
    /// Where bundles are kept on disk, if there is such a place.
    pub cache: Option<Cache>,
    /// Bounds on what is coded.
    pub limits: Limits,
    /// The routes that are coded for.
    pub routes: Vec<Route>,
    /// How they choose.
    pub plan: plan::Settings,
}

impl Keeper {
    /// Gets the edge's bundle, and gets it anew whenever the edge refuses it. Drops `waiting` when
    /// there is one to code with.
    pub async fn keep(self, link: &Link, in_use: &InUse, waiting: Blocker) {
        let mut waiting = Some(waiting);
        let mut pause = PAUSES[0];
        loop {
            match self.renew(link, in_use).await {
                Ok(digest) => {
                    waiting = None;
                    pause = PAUSES[0];
                    in_use.refused.notified().await;
                    tracing::warn!(bundle = %digest, "the edge refuses this bundle; it is asked for its own");
                }
                Err(error) => {
                    metrics::counter!("sidecod_device_bundle_fetch_failures_total").increment(1);
                    tracing::warn!(%error, ?pause, "no bundle from the edge");
                    if in_use.get().is_none() && waiting.is_some() && self.use_latest(in_use).await
                    {
                        waiting = None;
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
            }
        }
    }

    /// Asks the edge which bundle it decodes, and uses that one.
    async fn renew(&self, link: &Link, in_use: &InUse) -> Result<Digest, RenewError> {
        let description = describe(link).await?;
        let digest = choose(&description, self.name.as_deref())?.digest;
        if let Some(active) = in_use.get()
            && active.digest() == digest
        {
            // Another edge behind the same name may not have it yet.
            sleep(PAUSES[0]).await;
            return Ok(digest);
        }
        // The edge does not decode what is in use: nothing is coded until its own bundle is here.
        in_use.clear();
        let cache = self.cache.clone();
        let cached = tokio::task::spawn_blocking(move || cache?.load(digest)).await;
        let (files, is_cached) = match cached.ok().flatten() {
            Some(files) => (files, true),
            None => (fetch::fetch(link, digest).await?, false),
        };
        let files = Arc::new(files);
        self.open(files.clone(), in_use).await?;
        tracing::info!(bundle = %digest, cached = is_cached, "the edge's bundle is in use");
        if !is_cached && let Some(cache) = self.cache.clone() {
            let stored = tokio::task::spawn_blocking(move || cache.store(digest, &files)).await;
            if let Ok(Err(error)) = stored {
                tracing::warn!(%error, "the bundle cannot be kept on disk, and is fetched again at the next start");
            }
        }
        Ok(digest)
    }

    /// Uses the bundle that was used last, while the edge cannot be asked. It refuses frames if that
    /// is not the right one any more.
    async fn use_latest(&self, in_use: &InUse) -> bool {
        let cache = self.cache.clone();
        let latest = tokio::task::spawn_blocking(move || cache?.latest()).await;
        let Some((digest, files)) = latest.ok().flatten() else {
            return false;
        };
        match self.open(Arc::new(files), in_use).await {
            Ok(()) => {
                tracing::info!(bundle = %digest, "the bundle that was used last is in use");
                true
            }
            Err(error) => {
                tracing::warn!(bundle = %digest, %error, "a cached bundle");
                false
            }
        }
    }

    async fn open(&self, files: Arc<Files>, in_use: &InUse) -> Result<(), RenewError> {
        let limits = self.limits.clone();
        let codec = tokio::task::spawn_blocking(move || {
            Codec::of(files.all(), "the edge's bundle", limits)
        })
        .await;
        let codec = codec.map_err(|_| {
            RenewError::Open("the encoder of the edge's bundle cannot be read".to_owned())
        })?;
        let codec = codec.map_err(|error| RenewError::Open(error.to_string()))?;
        let (active, faults) = Active::new(&Arc::new(codec), &self.routes, &self.plan);
        for fault in faults {
            tracing::error!(fault, "requests of this route cross as they are");
        }
        in_use.set(active);
        Ok(())
    }
}

/// Why the edge's bundle is not in use.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Open(String),
}
