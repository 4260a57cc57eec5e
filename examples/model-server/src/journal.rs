//! A file with a line for every request that was answered: its `x-request-id` and the status. Tests
//! of what stands in front of the server count with it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

/// The open file.
#[derive(Debug, Clone)]
pub struct Journal(Arc<File>);

impl Journal {
    /// Opens a file to append to.
    ///
    /// # Errors
    /// If the system does not let it be written.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self(Arc::new(file)))
    }
}

/// Writes the line once the answer is there, before any of it is sent.
pub(crate) async fn note(State(journal): State<Journal>, request: Request, next: Next) -> Response {
    let id = request.headers().get("x-request-id").cloned();
    let answer = next.run(request).await;
    if let Some(id) = id {
        let id = String::from_utf8_lossy(id.as_bytes()).into_owned();
        let line = format!("{id} {}\n", answer.status().as_u16());
        if let Err(error) = (&*journal.0).write_all(line.as_bytes()) {
            eprintln!("model-server: --journal: {error}");
        }
    }
    answer
}
