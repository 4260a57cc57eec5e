//! The app: it sends a photo and waits for the answer.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use image::RgbImage;
use serde_json::Value;

use super::link::Link;
use super::programs::{FORCE, Method, Programs};
use super::report::Sample;
use crate::photos as folder;

/// JPEG quality of what the app sends: what cameras write.
const APP_QUALITY: u8 = 90;
/// Sides of the crops that it sends, by turns.
const SIDES: [u32; 3] = [224, 320, 448];
/// Photos.
const PHOTOS: usize = 12;
/// A tensor that would take longer than this, in seconds, is sent once for each link.
const LONG: f64 = 2.0;

/// A photo in the forms in which apps send one.
pub(super) struct Photo {
    jpeg: Bytes,
    tensor: Bytes,
}

/// Crops of the photos of a folder.
pub(super) fn photos(data: &Path) -> Result<Vec<Photo>> {
    let all = folder::list(data, None)?;
    let some = all.iter().cycle().take(PHOTOS).enumerate();
    some.map(|(index, file)| {
        let side = SIDES[index % SIDES.len()];
        let crop = folder::centre_crop(file, side, side)?;
        Ok(Photo {
            jpeg: folder::jpeg(&crop, APP_QUALITY)?.into(),
            tensor: tensor(&crop),
        })
    })
    .collect()
}

/// The input of EfficientNet-Lite0: 3 x 224 x 224 floats, (pixel - 127) / 128.
fn tensor(crop: &RgbImage) -> Bytes {
    let filter = image::imageops::FilterType::Triangle;
    let input = image::imageops::resize(crop, 224, 224, filter);
    let values = (0..3).flat_map(|channel| input.pixels().map(move |pixel| pixel.0[channel]));
    let floats = values.flat_map(|value| ((f32::from(value) - 127.0) / 128.0).to_le_bytes());
    floats.collect::<Vec<u8>>().into()
}

/// Sends a photo; none where it is left out because it would take too long.
pub(super) async fn send(
    programs: &Programs,
    method: &Method,
    photo: &Photo,
    link: Link,
    turn: usize,
) -> Result<Option<Sample>> {
    let (content_type, body) = match method {
        Method::DirectTensor => ("application/octet-stream", &photo.tensor),
        _ => ("image/jpeg", &photo.jpeg),
    };
    let seconds = body.len() as f64 * 8.0 / ((link.megabits - link.background) * 1e6);
    if turn > 0 && seconds > LONG {
        return Ok(None);
    }
    let mut request = Request::post(programs.url(method)).header("content-type", content_type);
    if let Method::Fixed(option) = method {
        request = request.header(FORCE, option);
    }
    let request = request.body(body.clone())?;
    let start = Instant::now();
    let answer = programs.client.send(request).await?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let text = String::from_utf8_lossy(answer.body());
    ensure!(
        answer.status().is_success(),
        "{}: {}: {text}",
        method.name(),
        answer.status()
    );
    let json: Value = serde_json::from_slice(answer.body())?;
    let class = json.pointer("/predictions/0/index").and_then(Value::as_u64);
    let mut sample = Sample {
        method: method.name().to_owned(),
        turn,
        ms,
        class: class.context("no prediction in the answer")?,
        bytes: body.len() as f64,
        network_ms: None,
        predicted_ms: None,
        chosen: None,
    };
    if let Some(url) = programs.plan_url(method) {
        let page = programs.client.get(&url).await?;
        let page: Value = serde_json::from_slice(page.body())?;
        let last = &page["routes"][0]["last"];
        sample.chosen = last["chosen"].as_str().map(ToOwned::to_owned);
        sample.predicted_ms = last["measured"]["predicted_ms"].as_f64();
        sample.network_ms = last["measured"]["network_ms"].as_f64();
        sample.bytes = last["measured"]["bytes"].as_f64().unwrap_or(sample.bytes);
    }
    Ok(Some(sample))
}

/// Sends a photo as the plan chooses.
pub(super) async fn plan(programs: &Programs, photo: &Photo) -> Result<Sample> {
    let link = Link {
        megabits: f64::INFINITY,
        ..Link::default()
    };
    let sample = send(programs, &Method::Plan, photo, link, 0).await?;
    sample.context("it is never left out")
}
