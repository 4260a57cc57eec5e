//! The device sidecar as a whole: what its parts share, and its start and end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Json;
use axum::extract::State;
use axum::routing::get;
use http::uri::Authority;
use http::{HeaderValue, Version};
use metrics::Counter;
use sidecod_sidecar::access::Access;
use sidecod_sidecar::admin::{self, Admin};
use sidecod_sidecar::connect::Connector;
use sidecod_sidecar::listen::{Connections, Http};
use sidecod_sidecar::metrics::{self as recorder, Handles};
use sidecod_sidecar::otlp::Spans;
use sidecod_sidecar::own::Own;
use sidecod_sidecar::readiness::Readiness;
use sidecod_sidecar::shutdown::{Shutdown, asked_to_end, unless_asked_again};
use sidecod_sidecar::upstream::{BaseUrl, Upstream};
use sidecod_wire::limits::Limits;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::retry::budget::TpsBudget;

use crate::bundle::{Active, Cache, InUse, Keeper};
use crate::config::{self, Config, Route};
use crate::encode::{Codec, Pool};
use crate::fallback::Outcome;
use crate::ingress::destination::{Destination, Listed};
use crate::ingress::{Ingress, Way};
use crate::intercept::NO_ROUTE;
use crate::link::Link;
use crate::plan;
use crate::plan::report::Report;
use crate::reload::{self, Chores, Current, Source};
use crate::trial::{self, Trials};

/// Time over which requests that are sent again are counted.
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// What all requests share.
pub struct App {
    pub(crate) routes: Vec<Route>,
    pub(crate) bundle: InUse,
    codec: config::Codec,
    limits: Limits,
    pub(crate) pool: Pool,
    /// How routes with several options choose.
    pub(crate) plan: plan::Settings,
    pub(crate) trials: Trials,
    pub(crate) link: Link,
    /// What is left of the requests that may be sent again.
    pub(crate) retries: TpsBudget,
    /// Where requests of reverse listeners go.
    pub(crate) reverse: Destination,
    /// Which other destinations go through the edge.
    pub(crate) listed: Listed,
    /// What calls servers that requests name themselves.
    pub(crate) outside: Upstream,
    /// The addresses that are this process' own.
    pub(crate) own: Own,
    pub(crate) ways: Ways,
    /// Kibibytes of bodies that may still be held.
    pub(crate) held: Arc<Semaphore>,
    pub(crate) body_timeout: Duration,
    pub(crate) keep_server_timing: bool,
    requests: Requests,
    /// Who is told of each request.
    pub(crate) access: Access,
}

/// Times of the forward and the transparent way in.
pub struct Ways {
    pub(crate) detect_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) tunnel_idle: Duration,
}

/// Requests of each route, by what came of them.
type Requests = HashMap<String, Handles<Counter>>;

impl App {
    /// Builds the parts, and begins to connect to the edges: call it inside a runtime. A bundle is in
    /// use only if it is a local one.
    ///
    /// # Errors
    /// If a local bundle cannot be opened, a route names a quality that it has not, or no thread starts.
    pub fn new(config: &Config) -> Result<Self> {
        let access = Access {
            level: config.log.access,
            spans: config
                .otlp
                .as_ref()
                .map(|otlp| Spans::start(otlp, "proxy-device")),
        };
        Self::build(config, Own::default(), access, None)
    }

    /// The same for another configuration. What is known of this process' addresses stays, and a
    /// fetched bundle stays in use.
    ///
    /// # Errors
    /// As [`App::new`].
    pub fn again(&self, config: &Config) -> Result<Self> {
        let fetched = self
            .bundle
            .get()
            .filter(|_| config.codec == self.codec && config.limits == self.limits);
        Self::build(config, self.own.clone(), self.access.clone(), fetched)
    }

    fn build(
        config: &Config,
        own: Own,
        access: Access,
        fetched: Option<Arc<Active>>,
    ) -> Result<Self> {
        let bundle = InUse::default();
        let plan = plan::Settings::new(config)?;
        if let Some(folder) = &config.codec.bundle {
            bundle.set(open(folder, config, &plan)?);
        } else if let Some(fetched) = fetched {
            bundle.set(Active::new(&fetched.codec, &config.routes, &plan).0);
        }
        let connect_timeout = Duration::from_millis(config.edge.connect_timeout_ms);
        let connector = Connector::new(connect_timeout, own.clone());
        let direct = config.direct.clone();
        let ways = Ways {
            detect_timeout: Duration::from_millis(config.listen.detect_timeout_ms),
            connect_timeout: Duration::from_millis(config.listen.connect_timeout_ms),
            tunnel_idle: Duration::from_millis(config.listen.tunnel_idle_ms),
        };
        Ok(Self {
            routes: config.routes.clone(),
            bundle,
            plan,
            codec: config.codec.clone(),
            limits: config.limits.clone(),
            pool: Pool::start("encode", config.codec.threads, config.codec.queue)?,
            retries: TpsBudget::new(
                RETRY_WINDOW,
                config.edge.retries_per_second,
                config.edge.retry_share as f32,
            ),
            trials: Trials::start(&config.routes)?,
            link: Link::new(&config.edge, own.clone()).context("edge")?,
            reverse: Destination {
                upstream: Some(HeaderValue::from_str(&config.edge.upstream).context("edge")?),
                direct: direct.map(|url| Arc::new(Upstream::new(url, connector))),
                version: Version::HTTP_11,
            },
            listed: Listed::new(&config.destinations).context("destination")?,
            outside: Upstream::new(
                BaseUrl::of(&Authority::from_static("localhost"))?,
                Connector::new(ways.connect_timeout, own.clone()),
            ),
            own,
            ways,
            held: Arc::new(Semaphore::new(config.max_held_mib << 10)),
            body_timeout: Duration::from_millis(config.body_timeout_ms),
            keep_server_timing: config.keep_server_timing,
            requests: requests(&config.routes),
            access,
        })
    }

    /// Counts a request.
    pub(crate) fn count(&self, route: &str, outcome: Outcome) {
        if let Some(requests) = self.requests.get(route) {
            requests.get(outcome.name()).increment(1);
        }
    }

    /// Tells it of a listener, so that no connection of its own goes there.
    pub fn listens(&self, address: SocketAddr) {
        self.own.listens(address);
    }

    /// What gets the edge's bundle, where no local one is named.
    pub(crate) fn keeper(&self, config: &Config) -> Option<Keeper> {
        let codec = &config.codec;
        codec.bundle.is_none().then(|| Keeper {
            name: codec.name.clone(),
            cache: Cache::find(codec.cache.as_deref()),
            limits: config.limits.clone(),
            routes: config.routes.clone(),
            plan: self.plan.clone(),
        })
    }
}

fn requests(routes: &[Route]) -> Requests {
    let names = routes.iter().map(|route| route.name.as_str());
    let counted = |name: &str| {
        let route = name.to_owned();
        let handles = Handles::new(move |outcome| {
            let route = route.clone();
            metrics::counter!("sidecod_device_requests_total", "route" => route, "outcome" => outcome)
        });
        (name.to_owned(), handles)
    };
    names.chain([NO_ROUTE]).map(counted).collect()
}

/// Opens the bundle in a folder and checks the routes against it.
///
/// # Errors
/// If a file is missing or damaged, or a route names a quality that the bundle has not.
pub fn open(folder: &Path, config: &Config, plan: &plan::Settings) -> Result<Active> {
    let codec = Codec::open(folder, config.limits.clone()).context("codec.bundle")?;
    let (active, faults) = Active::new(&Arc::new(codec), &config.routes, plan);
    match faults.into_iter().next() {
        None => Ok(active),
        Some(fault) => bail!(fault),
    }
}

/// Runs the sidecar until it is asked to end.
///
/// # Errors
/// If it cannot start.
pub async fn run(source: Source, config: Config) -> Result<()> {
    let metrics = recorder::install()?;
    let readiness = Readiness::default();
    let starting = readiness.block("codec");
    let listeners = bind(&config).await?;
    let (admin, line) = admin_and_line(&config, &listeners).await?;
    println!("{line}");

    let app = Arc::new(App::new(&config)?);
    for (_, listener) in &listeners {
        app.listens(listener.local_addr()?);
    }
    let (trigger, shutdown) = Shutdown::new();
    let (last_trigger, last) = Shutdown::new();
    let current = Current::from(app.clone());
    let pages = axum::Router::new()
        .route("/plan", get(plan_page))
        .with_state(current.clone());
    let told = Admin {
        program: "proxy-device",
        readiness: readiness.clone(),
        metrics,
        more: trial::report::router(current.clone()).merge(pages),
    };
    let admin = tokio::spawn(admin::serve(admin, told, last));
    let ingress = Ingress::new(current.clone(), Http::new(&config.server), shutdown);
    let connections = Connections::new(&config.server);
    let serving: Vec<_> = listeners
        .into_iter()
        .map(|(way, listener)| {
            tokio::spawn(ingress.clone().serve(way, listener, connections.clone()))
        })
        .collect();
    let chores = Chores::start(&app, &config, &readiness);
    // It is to end when a reload has put another in its place.
    drop(app);
    drop(starting);

    tokio::select! {
        asked = asked_to_end() => asked?,
        ended = reload::keep(source, config, current, chores, readiness.clone()) => ended?,
    }
    tracing::info!("draining");
    let _draining = readiness.block("draining");
    trigger.fire();
    unless_asked_again(async {
        for listener in serving {
            if let Err(error) = listener.await {
                tracing::error!(%error, "a listener broke off");
            }
        }
    })
    .await?;
    // It has said until now that the process is not ready, and what it still does.
    last_trigger.fire();
    admin.await?;
    Ok(())
}

/// What the plan tells; null while there is no bundle.
async fn plan_page(State(current): State<Current>) -> Json<Option<Report>> {
    let active = current.get().bundle.get();
    Json(active.map(|active| active.planner.report()))
}

/// Binds the listeners of apps.
async fn bind(config: &Config) -> Result<Vec<(Way, TcpListener)>> {
    let listen = &config.listen;
    let lists = [
        (Way::Reverse, &listen.reverse),
        (Way::Forward, &listen.forward),
        (Way::Transparent, &listen.transparent),
    ];
    let mut listeners = Vec::new();
    for (way, list) in lists {
        for &address in list {
            if way == Way::Forward && !address.ip().is_loopback() {
                tracing::warn!(%address, "whoever reaches this forward proxy can use it, and reach what this machine reaches");
            }
            listeners.push((
                way,
                bind_to(&format!("listen.{}", way.name()), address).await?,
            ));
        }
    }
    Ok(listeners)
}

/// Binds the admin listener, and says where all of them are.
async fn admin_and_line(
    config: &Config,
    listeners: &[(Way, TcpListener)],
) -> Result<(TcpListener, String)> {
    let admin = bind_to("admin", config.admin).await?;
    let mut line = "listening".to_owned();
    for (way, listener) in listeners {
        line = format!("{line} {}={}", way.name(), listener.local_addr()?);
    }
    line = format!("{line} admin={}", admin.local_addr()?);
    Ok((admin, line))
}

async fn bind_to(key: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key}: cannot listen on {address}"))
}
