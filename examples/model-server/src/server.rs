//! HTTP around the model.
//!
//! `POST /predictions/efficientnet-lite0` takes a picture as the raw body, or as a part of a
//! `multipart/form-data` body (the first part that is a picture; its field may have any name), and
//! answers `{"model": ..., "predictions": [{"class", "index", "probability"}, ...]}`, best first.
//! `GET /health` answers 200 `ok` once the model is loaded. Errors answer `{"error": "..."}`: 400 for
//! what is no whole picture, 413 for what is too large, 404, 405.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::journal::{self, Journal};
use crate::model::{self, Model, Prediction};
use crate::picture::{Input, Limits, PictureError};

/// Largest request body in bytes.
pub const MAX_BODY: usize = 32 << 20;

struct App {
    model: Model,
    limits: Limits,
    /// One permit for each picture that is decoded and classified at a time: the rest wait as
    /// requests, not as threads.
    running: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Answer {
    model: &'static str,
    predictions: Vec<Prediction>,
}

/// The whole server. At most `concurrent` pictures are worked on at a time.
pub fn router(model: Model, concurrent: usize) -> Router {
    let app = App {
        model,
        limits: Limits::default(),
        running: Arc::new(Semaphore::new(concurrent)),
    };
    Router::new()
        .route("/health", get(|| async { "ok" }))
        .route(&format!("/predictions/{}", model::NAME), post(predict))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            failure(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take that method",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(app))
}

/// The same, with a line in a journal for every answer.
pub fn noted(router: Router, journal: Journal) -> Router {
    router.layer(axum::middleware::from_fn_with_state(journal, journal::note))
}

async fn predict(State(app): State<Arc<App>>, request: Request) -> Result<Json<Answer>, Failure> {
    let picture = picture(request).await?;
    let running = app.running.clone();
    let Ok(permit) = running.acquire_owned().await else {
        return Err(failure(StatusCode::SERVICE_UNAVAILABLE, "shutting down"));
    };
    let work = move || {
        // The work holds it, not the request: it goes on when the client has left.
        let _permit = permit;
        classify(&app, &picture)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.map(Json),
        Err(error) => Err(failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            &error.to_string(),
        )),
    }
}

fn classify(app: &App, picture: &[u8]) -> Result<Answer, Failure> {
    let input = Input::read(picture, app.limits).map_err(|error| {
        let status = match error {
            PictureError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            PictureError::Unknown | PictureError::Damaged(_) => StatusCode::BAD_REQUEST,
        };
        failure(status, &error.to_string())
    })?;
    let predictions = app
        .model
        .classify(&input)
        .map_err(|error| failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
    Ok(Answer {
        model: model::NAME,
        predictions,
    })
}

/// The picture file in a request.
async fn picture(request: Request) -> Result<Bytes, Failure> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let multipart = content_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/"));
    if !multipart {
        return Bytes::from_request(request, &())
            .await
            .map_err(|rejection| failure(rejection.status(), &rejection.body_text()));
    }
    let mut parts = Multipart::from_request(request, &())
        .await
        .map_err(|rejection| failure(rejection.status(), &rejection.body_text()))?;
    let broken = |error: MultipartError| failure(error.status(), &error.body_text());
    let mut file = None;
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        let named = part.file_name().is_some();
        let bytes = part.bytes().await.map_err(broken)?;
        if image::guess_format(&bytes).is_ok() {
            return Ok(bytes);
        }
        if named && file.is_none() {
            file = Some(bytes);
        }
    }
    // A file that is no picture gets the same words as it would as a raw body.
    file.ok_or_else(|| failure(StatusCode::BAD_REQUEST, "no part of the form is a picture"))
}

/// Status and words of an answer that is no prediction.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        (status, Json(json!({ "error": message }))).into_response()
    }
}

fn failure(status: StatusCode, message: &str) -> Failure {
    Failure(status, message.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use axum::body::Body;
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    const PREDICT: &str = "/predictions/efficientnet-lite0";

    fn photo() -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../photos");
        std::fs::read(format!("{folder}/goldfish.jpg")).unwrap()
    }

    /// One server for all tests: the model takes a second to load.
    fn server() -> Router {
        static SERVER: OnceLock<Router> = OnceLock::new();
        SERVER
            .get_or_init(|| router(Model::load().unwrap(), 2))
            .clone()
    }

    async fn ask(method: &str, path: &str, kind: &str, body: Vec<u8>) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap();
        let response = server().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&body));
        (
            status,
            serde_json::from_slice(&body).unwrap_or_else(|_| text()),
        )
    }

    fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (head, bytes) in parts {
            let head = format!("--edge\r\nContent-Disposition: form-data; {head}\r\n\r\n");
            body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
        }
        body.extend(b"--edge--\r\n");
        body
    }

    #[tokio::test]
    async fn a_raw_body_is_classified() {
        for kind in ["image/jpeg", "application/octet-stream"] {
            let (status, answer) = ask("POST", PREDICT, kind, photo()).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(answer["model"], "efficientnet-lite0");
            assert_eq!(answer["predictions"].as_array().unwrap().len(), 5);
            assert_eq!(answer["predictions"][0]["index"], 1);
            assert_eq!(answer["predictions"][0]["class"], "goldfish");
            assert!(answer["predictions"][0]["probability"].as_f64().unwrap() > 0.8);
        }
    }

    #[tokio::test]
    async fn a_form_is_classified_whatever_its_field_is_called() {
        let photo = photo();
        let body = form(&[
            ("name=\"note\"", b"a photo follows"),
            ("name=\"anything\"; filename=\"a.jpg\"", &photo),
        ]);
        let kind = "Multipart/form-data; boundary=edge";
        let (status, answer) = ask("POST", PREDICT, kind, body).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(answer["predictions"][0]["index"], 1);
    }

    #[tokio::test]
    async fn what_is_no_whole_picture_is_400() {
        let kind = "multipart/form-data; boundary=edge";
        let file = "name=\"f\"; filename=\"a.jpg\"";
        let photo = photo();
        for (kind, body) in [
            ("image/jpeg", b"not a picture".to_vec()),
            ("image/jpeg", Vec::new()),
            ("image/jpeg", photo[..photo.len() / 2].to_vec()),
            (kind, form(&[(file, b"not a picture")])),
            (kind, form(&[("name=\"a\"", b"b")])),
            (kind, form(&[(file, &photo)])[..5000].to_vec()),
            ("multipart/form-data", Vec::new()),
        ] {
            let (status, answer) = ask("POST", PREDICT, kind, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{kind}: {answer}");
            assert!(!answer["error"].as_str().unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn too_large_a_body_is_413() {
        let large = vec![0; MAX_BODY + 1];
        let (status, _) = ask("POST", PREDICT, "image/jpeg", large.clone()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        let body = form(&[("name=\"f\"; filename=\"a.jpg\"", &large)]);
        let kind = "multipart/form-data; boundary=edge";
        let (status, _) = ask("POST", PREDICT, kind, body).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn paths_and_methods() {
        let none = Vec::new;
        let (status, answer) = ask("GET", "/health", "text/plain", none()).await;
        assert_eq!((status, answer), (StatusCode::OK, json!("ok")));
        let (status, answer) = ask("POST", "/predictions/other", "image/jpeg", none()).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(answer, json!({"error": "no such path"}));
        let (status, answer) = ask("GET", PREDICT, "image/jpeg", none()).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(answer["error"].is_string());
    }
}
