//! The admin port: a page for people, `/metrics` for Prometheus, `/live`, and `/ready` with what is
//! waited for.

mod page;

use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::get;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tower::ServiceExt;

pub use axum::Router;

use crate::listen::{self, ServerLimits};
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;

/// What an admin port tells.
pub struct Admin {
    /// The program's name, for the page.
    pub program: &'static str,
    /// What `/ready` tells.
    pub readiness: Readiness,
    /// What `/metrics` tells.
    pub metrics: PrometheusHandle,
    /// What the program has beside these.
    pub more: Router,
}

/// Serves the admin port until `shutdown`.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: Shutdown) {
    let Admin {
        program,
        readiness,
        metrics,
        more,
    } = admin;
    let ready = move || async move {
        let blockers = readiness.blockers();
        if blockers.is_empty() {
            (StatusCode::OK, "ready\n".to_owned())
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waiting for: {}\n", blockers.join(", ")),
            )
        }
    };
    let router = more
        .route("/", get(async move || page::answer(program)))
        .route("/metrics", get(async move || metrics.render()))
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready));
    let service = ServiceExt::<Request<Incoming>>::map_response(router, |answer: Response| {
        answer.map(|body| body.map_err(Into::into).boxed_unsync())
    });
    listen::http1(
        listener,
        &ServerLimits::default(),
        TowerToHyperService::new(service),
        shutdown,
    )
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn ready_names_what_is_waited_for_and_live_does_not_care() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_trigger, shutdown) = Shutdown::new();
        let readiness = Readiness::default();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let admin = Admin {
            program: "proxy-device",
            readiness: readiness.clone(),
            metrics,
            more: Router::new().route("/own", get(async || "own\n")),
        };
        tokio::spawn(serve(listener, admin, shutdown));
        let get = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.0\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let blocker = readiness.block("bundle photo-v0");
        let answer = get("/ready").await;
        assert!(
            answer.contains("503") && answer.ends_with("waiting for: bundle photo-v0\n"),
            "{answer}"
        );
        assert!(get("/live").await.contains("200"));
        drop(blocker);
        assert!(get("/ready").await.contains("200"));
        assert!(get("/metrics").await.contains("200"));
        assert!(get("/own").await.ends_with("own\n"));
        assert!(get("/").await.contains("<title>proxy-device</title>"));
        assert!(get("/other").await.contains("404"));
    }
}
