//! What is done beside a request, once the app has its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use sidecod_sidecar::Body;
use sidecod_sidecar::body::{self, Whole};
use sidecod_wire::header::JSON_LENGTH;
use sidecod_wire::slot::grpc;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::compare::{self, Answer};
use super::tally::Pair;
use super::{MAX_ANSWER, Task, Ticket, Trial, tee};
use crate::app::App;
use crate::config::Route;
use crate::encode::{ContentCodings, Crossing};
use crate::fallback::{self, Outcome};
use crate::ingress::destination::Destination;
use crate::{plan, route};

/// How the request was sent that the app waited for.
pub(crate) struct Led {
    /// What came of it.
    pub outcome: Outcome,
    /// Bytes of its frame, if it was coded.
    pub frame: Option<usize>,
    /// Time to the head of the answer, from when its body was there.
    pub took: Duration,
}

/// The request, and the memory that its body counts in.
pub(crate) struct Held {
    /// Its head.
    pub parts: Parts,
    /// Its body.
    pub whole: Whole,
    pub _place: OwnedSemaphorePermit,
}

/// Counts a request, and has done beside it what its ticket says. Gives the answer for the app.
pub(crate) fn follow(
    app: &Arc<App>,
    destination: &Destination,
    route: &Route,
    ticket: Ticket,
    led: &Led,
    held: Held,
    answer: Response<Body>,
) -> Response<Body> {
    let trial = ticket.trial;
    trial.count_request();
    if let (Outcome::Code | Outcome::Classical, Some(frame)) = (led.outcome, led.frame) {
        trial.count_coded(held.whole.bytes.len(), frame);
    }
    let with_code = match led.outcome {
        Outcome::Code | Outcome::Classical => true,
        Outcome::Passthrough if ticket.not_coded.is_some() => false,
        // It is known already that it has no code, or that a way is out of order.
        _ => return answer,
    };
    let Some((task, place)) = ticket.task else {
        return answer;
    };
    let cap = if task == Task::Compare { MAX_ANSWER } else { 0 };
    let (parts, body) = answer.into_parts();
    let (body, copy) = tee::tee(body, cap);
    let beside = Beside {
        app: app.clone(),
        destination: destination.clone(),
        route: route.clone(),
        trial,
        held,
        _place: place,
    };
    let first = First {
        with_code,
        took: led.took,
        status: parts.status,
        headers: parts.headers.clone(),
        body: copy,
    };
    tokio::spawn(beside.run(task, first));
    Response::from_parts(parts, body)
}

/// The answer that the app gets.
struct First {
    with_code: bool,
    took: Duration,
    status: StatusCode,
    headers: HeaderMap,
    body: oneshot::Receiver<Option<Bytes>>,
}

struct Beside {
    app: Arc<App>,
    destination: Destination,
    route: Route,
    trial: Arc<Trial>,
    held: Held,
    _place: OwnedSemaphorePermit,
}

impl Beside {
    async fn run(self, task: Task, first: First) {
        let body = first.body.await.ok().flatten();
        if task == Task::Measure {
            self.code().await;
            return;
        }
        let Some(answer) = body.and_then(|body| read(&first.headers, &body)) else {
            self.trial.count_unusable();
            return;
        };
        // What is out of order says nothing of the codec.
        if is_busy(first.status) {
            self.trial.count_unusable();
            return;
        }
        let begin = Instant::now();
        let coded = if first.with_code {
            None
        } else {
            match self.code().await {
                Some(coded) => Some(coded),
                None => return,
            }
        };
        let Some((status, second, took)) = self.ask(coded, begin).await else {
            self.trial.count_failed();
            return;
        };
        let agree = if is_busy(status) {
            None
        } else if status != first.status {
            Some(false)
        } else {
            second.and_then(|second| compare::agree(self.route.compare, &answer, &second))
        };
        let Some(agree) = agree else {
            self.trial.count_unusable();
            return;
        };
        let (code, original) = if first.with_code {
            (first.took, took)
        } else {
            (took, first.took)
        };
        self.trial.add(Pair {
            agree,
            code,
            original,
        });
    }

    /// The code that was not sent, counted.
    async fn code(&self) -> Option<Crossing> {
        let begin = Instant::now();
        let (headers, whole) = (&self.held.parts.headers, &self.held.whole);
        let pool = &self.app.trials.pool;
        let coded = plan::other(&self.app, pool, &self.route, headers, whole).await?;
        let original = whole.bytes.len();
        self.trial
            .count_observed(original, coded.bytes().len(), begin.elapsed());
        Some(coded)
    }

    /// The other answer, if it can be compared, and the time to its head since `begin`.
    async fn ask(
        &self,
        coded: Option<Crossing>,
        begin: Instant,
    ) -> Option<(StatusCode, Option<Answer>, Duration)> {
        let Held { parts, whole, .. } = &self.held;
        let bytes = coded
            .as_ref()
            .map_or(whole.bytes.len(), |c| c.bytes().len());
        self.trial.count_verify_bytes(bytes);
        let limit = self.route.timeout();
        let answer =
            fallback::ask(&self.app, &self.destination, parts, whole, coded, limit).await?;
        let took = begin.elapsed();
        let (head, incoming) = answer.into_parts();
        let answer = match body::hold(incoming, MAX_ANSWER, limit).await {
            Ok(body::Held::Whole(whole)) => read(&head.headers, &whole.bytes),
            Ok(body::Held::Over(_)) => None,
            Err(_) => return None,
        };
        Some((head.status, answer, took))
    }
}

/// Whether a status tells of the server's state, not of the request.
fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// An answer without its content codings; none if they do not come off.
fn read(headers: &HeaderMap, body: &[u8]) -> Option<Answer> {
    let codings = match headers.get(header::CONTENT_ENCODING) {
        Some(value) => ContentCodings::parse(value.to_str().ok()?)?,
        None => ContentCodings::default(),
    };
    let plain = codings.decode(body, MAX_ANSWER).ok()?.into_owned();
    Some(Answer {
        body: plain.into(),
        is_grpc: route::content_type(headers).is_some_and(grpc::is),
        json_length: headers
            .get(JSON_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok()),
    })
}
