//! What both sidecars together do to bytes, answers and times, photo by photo.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::client::Client;
use crate::photos;
use crate::stack::Stack;

/// JPEG quality of what the app sends: what cameras write.
const APP_QUALITY: u8 = 90;
const PATH: &str = "/predictions/efficientnet-lite0";
const SHORT: u32 = 256;
const SIDE: u32 = 224;

/// What one photo gave.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Name of the photo.
    pub photo: String,
    /// Bytes of the app's body.
    pub app_bytes: u64,
    /// Bytes written to the connection to the edge: frame, HTTP/2 and headers.
    pub link_bytes: u64,
    /// Index of the class that the model server answers directly.
    pub direct: u64,
    /// Index of the class that comes back through both sidecars.
    pub offloaded: u64,
    /// Milliseconds of the direct request.
    pub direct_ms: f64,
    /// Milliseconds of the request through both sidecars.
    pub offloaded_ms: f64,
}

/// Means over all photos.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Number of photos.
    pub photos: usize,
    /// Mean bytes of the app's body.
    pub app_bytes: f64,
    /// Mean bytes on the link.
    pub link_bytes: f64,
    /// Share of photos with the same first class.
    pub agreement: f64,
    /// Share of the requests that crossed as a code.
    pub coded: f64,
    /// Median milliseconds of the direct request.
    pub direct_ms: f64,
    /// Median milliseconds through both sidecars.
    pub offloaded_ms: f64,
}

/// Sends 224x224 centre crops of photos directly and through a freshly started stack.
///
/// # Errors
/// If a program does not start, a photo cannot be read, or an answer is not the model server's.
pub async fn measure(photos: &[PathBuf]) -> Result<(Vec<Row>, Summary)> {
    let stack = Stack::start(&[], &[]).await?;
    let client = Client::default();
    let direct_url = format!("http://{}{PATH}", stack.server.address("data"));
    let device_url = format!("http://{}{PATH}", stack.device.address("reverse"));
    let metrics = format!("http://{}/metrics", stack.device.address("admin"));
    let sent = || {
        client.metric(
            &metrics,
            "sidecod_device_link_bytes_total",
            &["direction=\"sent\""],
        )
    };

    let bar = ProgressBar::new(photos.len() as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} photos, {eta} left",
    )?);
    let mut rows = Vec::with_capacity(photos.len());
    // The first request on a connection pays for its preface and for headers that later ones refer to.
    for photo in photos.first().into_iter().chain(photos) {
        let crop = photos::centre_crop(photo, SHORT, SIDE)?;
        let body = Bytes::from(photos::jpeg(&crop, APP_QUALITY)?);
        let (direct, direct_ms) = classify(&client, &direct_url, body.clone()).await?;
        let before = sent().await?;
        let (offloaded, offloaded_ms) = classify(&client, &device_url, body.clone()).await?;
        rows.push(Row {
            photo: photo
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            app_bytes: body.len() as u64,
            link_bytes: (sent().await? - before) as u64,
            direct,
            offloaded,
            direct_ms,
            offloaded_ms,
        });
        bar.set_position(rows.len() as u64 - 1);
    }
    bar.finish_and_clear();
    let coded = client
        .metric(
            &metrics,
            "sidecod_device_requests_total",
            &["outcome=\"code\""],
        )
        .await?;
    let coded = coded / rows.len() as f64;
    rows.remove(0);
    let mean = |value: fn(&Row) -> f64| rows.iter().map(value).sum::<f64>() / rows.len() as f64;
    let median = |value: fn(&Row) -> f64| {
        let mut values: Vec<f64> = rows.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let summary = Summary {
        photos: rows.len(),
        app_bytes: mean(|row| row.app_bytes as f64),
        link_bytes: mean(|row| row.link_bytes as f64),
        agreement: mean(|row| f64::from(row.direct == row.offloaded)),
        coded,
        direct_ms: median(|row| row.direct_ms),
        offloaded_ms: median(|row| row.offloaded_ms),
    };
    Ok((rows, summary))
}

async fn classify(client: &Client, url: &str, body: Bytes) -> Result<(u64, f64)> {
    let start = Instant::now();
    let answer = client.post(url, "image/jpeg", body).await?;
    let elapsed = start.elapsed().as_secs_f64() * 1e3;
    let text = String::from_utf8_lossy(answer.body());
    ensure!(
        answer.status().is_success(),
        "{url} answers {}: {text}",
        answer.status()
    );
    let json: serde_json::Value = serde_json::from_slice(answer.body())?;
    let index = json
        .pointer("/predictions/0/index")
        .and_then(serde_json::Value::as_u64);
    Ok((
        index.with_context(|| format!("no prediction in {text}"))?,
        elapsed,
    ))
}
