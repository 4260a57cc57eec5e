//! One request of a device: admitted, restored if it is a frame, passed on, its answer relayed.

use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use metrics::{Counter, Gauge};
use sidecod_sidecar::access::{self, Access, Known, Line};
use sidecod_sidecar::metrics::{Gauged, Handles};
use sidecod_sidecar::otlp::{Spans, TRACEPARENT};
use sidecod_sidecar::readiness::Readiness;
use sidecod_sidecar::upgrade::ASK;
use sidecod_sidecar::{Body, body};
use sidecod_wire::frame;
use sidecod_wire::header::{self, ASK_PROBE, ASK_PROFILE, JSON_LENGTH, TOKEN, UPSTREAM};
use tokio::sync::Semaphore;

use crate::about::About;
use crate::config::{Config, Token};
use crate::deadline::Deadline;
use crate::fail::Fail;
use crate::point::Place;
use crate::relay::{self, Steps};
use crate::restore::{Restored, RestoredBody, Restorer};
use crate::upgrade;
use crate::upstream::{self, Turn, Upstream, Upstreams};

/// The upstream of a request that names none.
const DEFAULT_UPSTREAM: &str = "default";
/// How requests are counted that are for none.
const UNKNOWN: &str = "unknown";
static OF_UNKNOWN: LazyLock<Handles<Counter>> = LazyLock::new(|| upstream::requests(UNKNOWN));
static IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| metrics::gauge!("sidecod_edge_in_flight"));
/// Bytes of a probe of the link.
const MOST_PROBE: usize = 64 << 10;

/// A body of a device, whose bytes the line of the request tells.
pub(crate) type DeviceBody = access::Counted<Incoming>;

/// What the data listener serves.
pub struct Edge {
    settings: ArcSwap<Settings>,
    readiness: Readiness,
    restorer: OnceLock<Restorer>,
    frames: Semaphore,
    /// JSON of what `proxy-edge profile` wrote.
    profile: Option<Bytes>,
    access: Access,
}

/// What can change while the edge runs.
struct Settings {
    token: Option<Token>,
    upstreams: Upstreams,
    about: About,
    max_body: usize,
    body_timeout: Duration,
}

impl Settings {
    fn new(config: &Config, about: About) -> Self {
        Self {
            token: config.token.clone(),
            upstreams: Upstreams::new(&config.upstreams),
            about,
            max_body: config.max_body,
            body_timeout: Duration::from_millis(config.body_timeout_ms),
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(TOKEN).map_or(&b""[..], HeaderValue::as_bytes);
        self.token.as_ref().is_none_or(|token| token.is(shown))
    }

    async fn restore(
        &self,
        restorer: &Restorer,
        incoming: DeviceBody,
        steps: &mut Steps,
    ) -> Result<Restored, Fail> {
        let cap = self.max_body;
        let too_large = || Fail::TooLarge(format!("the frame has more than {cap} bytes"));
        if incoming.size_hint().lower() > cap as u64 {
            return Err(too_large());
        }
        let held = body::hold(incoming, cap, self.body_timeout).await;
        match held {
            Ok(body::Held::Whole(whole)) => restorer.restore(whole.bytes, steps).await,
            Ok(body::Held::Over(_)) => Err(too_large()),
            Err(error @ body::HoldError::Timeout(_)) => Err(Fail::BodyTimeout(error.to_string())),
            Err(error) => Err(Fail::BadFrame(error.to_string())),
        }
    }

    /// Answers an input of which the device has run the head: with the tail's outputs, or with what
    /// the model server makes of the feature.
    async fn answer_feature(
        &self,
        (upstream, deadline): (&Upstream, Deadline),
        (place, values): (&Place, &[f32]),
        mut parts: Parts,
        steps: &mut Steps,
        guard: (Gauged, Turn),
    ) -> Result<Response<Body>, Fail> {
        let Some(body) = place.request(&mut parts, values) else {
            return Ok(relay::own(place.answer(values), steps, guard));
        };
        parts.version = relay::upstream_version(&parts.headers);
        relay::to_upstream(&mut parts);
        let begin = Instant::now();
        let request = Request::from_parts(parts, body::full(body));
        let answer = upstream.call(request, deadline.rest()).await?;
        if !answer.status().is_success() {
            steps.note("upstream", begin.elapsed());
            return Ok(relay::to_device(answer, steps, guard));
        }
        let held = body::hold(answer.into_body(), self.max_body, self.body_timeout).await;
        steps.note("upstream", begin.elapsed());
        match held {
            Ok(body::Held::Whole(whole)) => {
                let answered = place.answered(&whole.bytes)?;
                Ok(relay::own(answered, steps, guard))
            }
            Ok(body::Held::Over(_)) => Err(Fail::BadAnswer(format!(
                "the model server's answer to a feature has more than {} bytes",
                self.max_body
            ))),
            Err(error) => Err(Fail::BadAnswer(error.to_string())),
        }
    }
}

impl Edge {
    /// An edge that refuses requests until [`Self::open`] is called, and says what blocks `readiness`.
    #[must_use]
    pub fn new(
        config: &Config,
        about: About,
        readiness: Readiness,
        profile: Option<Bytes>,
    ) -> Self {
        Self {
            frames: Semaphore::new(config.max_frames),
            restorer: OnceLock::new(),
            access: Access {
                level: config.log.access,
                spans: config
                    .otlp
                    .as_ref()
                    .map(|otlp| Spans::start(otlp, "proxy-edge")),
            },
            readiness,
            profile,
            settings: ArcSwap::from_pointee(Settings::new(config, about)),
        }
    }

    /// Uses another configuration for the requests to come.
    pub fn reload(&self, config: &Config) {
        let about = self.settings.load().about.with(&config.upstreams);
        self.settings.store(Arc::new(Settings::new(config, about)));
    }

    /// Gives it what frames are decoded with. Only the first call counts.
    pub fn open(&self, restorer: Restorer) {
        let _ = self.restorer.set(restorer);
    }

    /// Answers a request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let in_flight = Gauged::new(IN_FLIGHT.clone());
        let line = Line::begin(&self.access, &request);
        let mut request = request.map(|body| line.count(body));
        let settings = self.settings.load_full();
        let mut steps = Steps::default();
        if settings.admits(request.headers())
            && let Some(answer) = settings.about.answer(&request)
        {
            let known = || Known {
                route: "none".to_owned(),
                outcome: "own",
                sent: steps.restored(),
                steps: steps.into(),
            };
            return line.end(known, answer);
        }
        if let Some(what) = request.headers().get(header::ASK).cloned() {
            let answer = Box::pin(self.ask(&settings, &what, request)).await;
            let outcome = answer.as_ref().map_or_else(|fail| fail.kind().1, |_| "own");
            let known = || Known {
                route: "none".to_owned(),
                outcome,
                ..Known::default()
            };
            return line.end(known, answer.unwrap_or_else(|fail| fail.answer()));
        }
        if let Some(place) = line.place() {
            request
                .headers_mut()
                .insert(TRACEPARENT, place.traceparent());
        }
        let (upstream, counted, outcome, answer) = match self.admit(&settings, request.headers()) {
            // A name from outside is no label: labels are kept for ever.
            Err(fail) => (UNKNOWN, &*OF_UNKNOWN, fail.kind().1, fail.answer()),
            Ok((upstream, restorer)) => {
                let framed = is_frame(request.headers());
                let outcome = if framed { "code" } else { "passthrough" };
                let (name, counted) = (&*upstream.name, &upstream.requests);
                let whither = (&*settings, upstream, restorer);
                let passed = self.pass_on(whither, request, &mut steps, in_flight);
                match passed.await {
                    Ok(answer) => (name, counted, outcome, answer),
                    Err(fail) => {
                        tracing::debug!(upstream = name, %fail, "no answer of the model server");
                        (name, counted, fail.kind().1, fail.answer())
                    }
                }
            }
        };
        counted.get(outcome).increment(1);
        let known = || Known {
            route: upstream.to_owned(),
            outcome,
            sent: steps.restored(),
            steps: steps.into(),
        };
        line.end(known, answer)
    }

    /// Whether the request may enter, and where it goes.
    fn admit<'s>(
        &'s self,
        settings: &'s Settings,
        headers: &HeaderMap,
    ) -> Result<(&'s Upstream, &'s Restorer), Fail> {
        let restorer = self.enter(settings, headers)?;
        let name = headers
            .get(UPSTREAM)
            .map_or(&b""[..], HeaderValue::as_bytes);
        let name = match String::from_utf8_lossy(name) {
            name if name.is_empty() => DEFAULT_UPSTREAM.into(),
            name => name,
        };
        let upstream = settings.upstreams.get(&name);
        let upstream = upstream.ok_or_else(|| Fail::UnknownUpstream(name.into_owned()))?;
        Ok((upstream, restorer))
    }

    /// Whether the device may enter, and whether there is something to be entered.
    fn enter(&self, settings: &Settings, headers: &HeaderMap) -> Result<&Restorer, Fail> {
        if !settings.admits(headers) {
            return Err(Fail::Unauthorized);
        }
        // Not the readiness itself: what comes while the process drains is still served.
        let restorer = self.restorer.get();
        restorer.ok_or_else(|| Fail::NotReady(self.readiness.blockers().join(", ")))
    }

    async fn pass_on(
        &self,
        (settings, upstream, restorer): (&Settings, &Upstream, &Restorer),
        request: Request<DeviceBody>,
        steps: &mut Steps,
        in_flight: Gauged,
    ) -> Result<Response<Body>, Fail> {
        if let Some(protocol) = request.headers().get(ASK) {
            let protocol = protocol.clone();
            // In boxes, so that what most requests need stays small.
            return Box::pin(upgrade::answer(upstream, request, protocol, in_flight)).await;
        }
        let sent = Sent::default();
        let (mut parts, incoming) = request.into_parts();
        let deadline = Deadline::of(&parts.headers);
        let turn = upstream.turn().await?;
        // Held until the model server answers: until then the body is in memory.
        let mut _permit = None;
        let outgoing = if is_frame(&parts.headers) {
            let permit = self.frames.try_acquire();
            _permit = Some(permit.map_err(|_| Fail::Overloaded("too many frames are in hand"))?);
            let RestoredBody {
                body,
                content_type,
                json_length,
            } = match deadline
                .half(Box::pin(settings.restore(restorer, incoming, steps)))
                .await?
            {
                Restored::Body(body) => body,
                Restored::Values(place, values) => {
                    let (whither, feature) = ((upstream, deadline), (&*place, &values[..]));
                    let guard = (in_flight, turn);
                    let answer = settings.answer_feature(whither, feature, parts, steps, guard);
                    return Box::pin(answer).await;
                }
            };
            steps.note_restored(body.len());
            let headers = &mut parts.headers;
            headers.insert(CONTENT_LENGTH, body.len().into());
            headers.remove(CONTENT_TYPE);
            if let Some(length) = json_length {
                headers.insert(JSON_LENGTH, length.into());
            }
            if let Some(content_type) = content_type {
                let value = HeaderValue::from_str(&content_type);
                let value =
                    value.map_err(|error| Fail::BadFrame(format!("content-type: {error}")))?;
                headers.insert(CONTENT_TYPE, value);
            }
            body::full(body)
        } else {
            body::streamed(Ended::new(incoming, sent.clone()))
        };
        parts.version = relay::upstream_version(&parts.headers);
        relay::to_upstream(&mut parts);
        let begin = Instant::now();
        let request = Request::from_parts(parts, outgoing);
        let answer = upstream.call(request, deadline.rest()).await?;
        // The time in which a body still came in is the link's.
        let since = sent.get().map_or(begin, |ended| (*ended).max(begin));
        steps.note("upstream", since.elapsed());
        Ok(relay::to_device(answer, steps, (in_flight, turn)))
    }

    /// Answers what a device asks of the edge itself.
    async fn ask(
        &self,
        settings: &Settings,
        what: &HeaderValue,
        request: Request<DeviceBody>,
    ) -> Result<Response<Body>, Fail> {
        self.enter(settings, request.headers())?;
        let (status, body) = match what.as_bytes() {
            what if what == ASK_PROFILE.as_bytes() => match &self.profile {
                Some(profile) => (StatusCode::OK, profile.clone()),
                None => (StatusCode::NO_CONTENT, Bytes::new()),
            },
            what if what == ASK_PROBE.as_bytes() => {
                let timeout = settings.body_timeout;
                match body::hold(request.into_body(), MOST_PROBE, timeout).await {
                    Ok(body::Held::Whole(_)) => (StatusCode::NO_CONTENT, Bytes::new()),
                    Ok(body::Held::Over(_)) => {
                        let limit = format!("a probe has at most {MOST_PROBE} bytes");
                        return Err(Fail::TooLarge(limit));
                    }
                    Err(error) => return Err(Fail::BodyTimeout(error.to_string())),
                }
            }
            _ => return Err(Fail::UnknownAsk),
        };
        let mut answer = Response::new(body::full(body));
        *answer.status_mut() = status;
        Ok(answer)
    }
}

/// When the last of a body had come in.
type Sent = Arc<OnceLock<Instant>>;

/// A body that notes when it ends.
struct Ended {
    body: DeviceBody,
    sent: Sent,
}

impl Ended {
    fn new(body: DeviceBody, sent: Sent) -> Self {
        Self { body, sent }
    }
}

impl http_body::Body for Ended {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.sent.get_or_init(Instant::now);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Whether the body is a frame.
fn is_frame(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(frame::CONTENT_TYPE))
}
