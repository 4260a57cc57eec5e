//! One request of a device: admitted, restored if it is a frame, passed on, its answer relayed.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use sidecod_sidecar::access::{self, Access, Known, Line};
use sidecod_sidecar::metrics::Gauged;
use sidecod_sidecar::otlp::{Spans, TRACEPARENT};
use sidecod_sidecar::readiness::Readiness;
use sidecod_sidecar::upgrade::ASK;
use sidecod_sidecar::{Body, body};
use sidecod_wire::frame;
use sidecod_wire::header::{JSON_LENGTH, PROBE, TOKEN, UPSTREAM};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::fail::Fail;
use crate::relay::{self, Steps};
use crate::restore::{Restored, Restorer};
use crate::upgrade;
use crate::upstream::{Upstream, Upstreams};

/// The upstream of a request that names none.
const DEFAULT_UPSTREAM: &str = "default";

/// A body of a device, whose bytes the line of the request tells.
pub(crate) type DeviceBody = access::Counted<Incoming>;

/// What the data listener serves.
pub struct Edge {
    config: Config,
    upstreams: Upstreams,
    readiness: Readiness,
    restorer: OnceLock<Restorer>,
    frames: Semaphore,
    access: Access,
}

impl Edge {
    /// An edge that refuses requests until [`Self::open`] is called, and says what blocks `readiness`.
    #[must_use]
    pub fn new(config: Config, readiness: Readiness) -> Self {
        Self {
            upstreams: Upstreams::new(&config.upstreams),
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
            config,
        }
    }

    /// Gives it what frames are decoded with. Only the first call counts.
    pub fn open(&self, restorer: Restorer) {
        let _ = self.restorer.set(restorer);
    }

    /// Answers a request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if request.headers().contains_key(PROBE) {
            return match self.enter(request.headers()) {
                Ok(_) => no_content(),
                Err(fail) => fail.answer(),
            };
        }
        let in_flight = Gauged::new(metrics::gauge!("sidecod_edge_in_flight"));
        let line = Line::begin(&self.access, &request);
        let mut request = request.map(|body| line.count(body));
        if let Some(place) = line.place() {
            request
                .headers_mut()
                .insert(TRACEPARENT, place.traceparent());
        }
        let mut steps = Steps::default();
        let (upstream, outcome, answer) = match self.admit(request.headers()) {
            // A name from outside is no label: labels are kept for ever.
            Err(fail) => ("unknown".to_owned(), fail.kind().1, fail.answer()),
            Ok((upstream, restorer)) => {
                let framed = is_frame(request.headers());
                let outcome = if framed { "code" } else { "passthrough" };
                let name = upstream.name.clone();
                let passed = self.pass_on(upstream, restorer, request, &mut steps, in_flight);
                match passed.await {
                    Ok(answer) => (name, outcome, answer),
                    Err(fail) => {
                        tracing::debug!(upstream = name, %fail, "no answer of the model server");
                        (name, fail.kind().1, fail.answer())
                    }
                }
            }
        };
        metrics::counter!(
            "sidecod_edge_requests_total", "upstream" => upstream.clone(), "outcome" => outcome
        )
        .increment(1);
        let known = || Known {
            route: upstream,
            outcome,
            sent: steps.restored(),
            steps: steps.into(),
        };
        line.end(known, answer)
    }

    /// Whether the request may enter, and where it goes.
    fn admit(&self, headers: &HeaderMap) -> Result<(&Upstream, &Restorer), Fail> {
        let restorer = self.enter(headers)?;
        let name = headers
            .get(UPSTREAM)
            .map_or(&b""[..], HeaderValue::as_bytes);
        let name = match String::from_utf8_lossy(name) {
            name if name.is_empty() => DEFAULT_UPSTREAM.into(),
            name => name,
        };
        let upstream = self.upstreams.get(&name);
        let upstream = upstream.ok_or_else(|| Fail::UnknownUpstream(name.into_owned()))?;
        Ok((upstream, restorer))
    }

    /// Whether the device may enter, and whether there is something to be entered.
    fn enter(&self, headers: &HeaderMap) -> Result<&Restorer, Fail> {
        let shown = headers.get(TOKEN).map_or(&b""[..], HeaderValue::as_bytes);
        if self
            .config
            .token
            .as_ref()
            .is_some_and(|token| !token.is(shown))
        {
            return Err(Fail::Unauthorized);
        }
        // Not the readiness itself: what comes while the process drains is still served.
        let restorer = self.restorer.get();
        restorer.ok_or_else(|| Fail::NotReady(self.readiness.blockers().join(", ")))
    }

    async fn pass_on(
        &self,
        upstream: &Upstream,
        restorer: &Restorer,
        request: Request<DeviceBody>,
        steps: &mut Steps,
        in_flight: Gauged,
    ) -> Result<Response<Body>, Fail> {
        if let Some(protocol) = request.headers().get(ASK) {
            let protocol = protocol.clone();
            return upgrade::answer(upstream, request, protocol, in_flight).await;
        }
        let (mut parts, incoming) = request.into_parts();
        let deadline = Deadline::of(&parts.headers);
        let turn = upstream.turn().await?;
        // Held until the model server answers: until then the body is in memory.
        let mut _permit = None;
        let outgoing = if is_frame(&parts.headers) {
            let permit = self.frames.try_acquire();
            _permit = Some(permit.map_err(|_| Fail::Overloaded("too many frames are in hand"))?);
            let Restored {
                body,
                content_type,
                json_length,
            } = deadline
                .half(self.restore(restorer, incoming, steps))
                .await?;
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
            body::streamed(incoming)
        };
        parts.version = relay::upstream_version(&parts.headers);
        relay::to_upstream(&mut parts);
        let begin = Instant::now();
        let request = Request::from_parts(parts, outgoing);
        let answer = upstream.call(request, deadline.rest()).await?;
        steps.note("upstream", begin.elapsed());
        Ok(relay::to_device(answer, steps, (in_flight, turn)))
    }

    async fn restore(
        &self,
        restorer: &Restorer,
        incoming: DeviceBody,
        steps: &mut Steps,
    ) -> Result<Restored, Fail> {
        let cap = self.config.max_body;
        let too_large = || Fail::TooLarge(format!("the frame has more than {cap} bytes"));
        if incoming.size_hint().lower() > cap as u64 {
            return Err(too_large());
        }
        let held = body::hold(
            incoming,
            cap,
            Duration::from_millis(self.config.body_timeout_ms),
        )
        .await;
        match held {
            Ok(body::Held::Whole(whole)) => restorer.restore(whole.bytes, steps).await,
            Ok(body::Held::Over(_)) => Err(too_large()),
            Err(error @ body::HoldError::Timeout(_)) => Err(Fail::BodyTimeout(error.to_string())),
            Err(error) => Err(Fail::BadFrame(error.to_string())),
        }
    }
}

fn no_content() -> Response<Body> {
    let mut answer = Response::new(body::none());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// Whether the body is a frame.
fn is_frame(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(frame::CONTENT_TYPE))
}
