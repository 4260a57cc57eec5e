//! `proxy-edge profile`: what this machine takes to turn frames back into bodies.

use std::sync::Arc;

use bytes::Bytes;
use sidecod_sidecar::profile::{Profiler, Summary};
use sidecod_wire::bundle::{Bundle, Point};
use sidecod_wire::entropy::{self, Symbols};
use sidecod_wire::frame::{Frame, PictureSlot, Slot};
use sidecod_wire::media::{Color, MediaType};
use sidecod_wire::profile::{Profile, RESTORE};
use sidecod_wire::slot::{Form, Skeleton, Text};

use crate::bundles::Stored;
use crate::config::Config;
use crate::relay::Steps;
use crate::restore::Restorer;
use crate::run::{self, RunError};

/// Measures every bundle as a whole: from the frame to the body, decoder and file included. Pictures have at most this side.
///
/// # Errors
/// If a decoder does not load, or a frame is not restored.
pub async fn measure(
    config: Config,
    stored: Vec<Stored>,
    max_side: u32,
) -> Result<(Profile, Summary), RunError> {
    let limits = config.limits.clone();
    let bundles: Vec<Bundle> = stored.iter().map(|stored| stored.bundle.clone()).collect();
    let restorer = Arc::new(run::load(config, stored).await?);
    let measuring = tokio::task::spawn_blocking(move || {
        let mut profiler = Profiler::new(bundles.len(), max_side);
        for bundle in &bundles {
            let digest = bundle.digest.to_string();
            profiler.part(RESTORE, Some(digest), |side| {
                if limits.check_picture(side, side).is_err() {
                    return Ok(None);
                }
                let (frame, restorer) = (frame(bundle, side)?, restorer.clone());
                Ok::<_, RunError>(Some(move || restore(&restorer, frame.clone())))
            })?;
        }
        Ok(profiler.finish())
    });
    let ended = |error: tokio::task::JoinError| RunError::Measure(error.to_string());
    measuring.await.map_err(ended)?
}

fn restore(restorer: &Restorer, frame: Bytes) -> Result<(), RunError> {
    let mut steps = Steps::default();
    let restoring = restorer.restore(frame, &mut steps);
    let done = tokio::runtime::Handle::current().block_on(restoring);
    done.map_err(|fail| RunError::Measure(fail.to_string()))?;
    Ok(())
}

/// A frame with one square picture, of symbols as they are in photos: mostly none, seldom large.
fn frame(bundle: &Bundle, side: u32) -> Result<Bytes, RunError> {
    let manifest = &bundle.manifest;
    let quality = manifest.qualities.len() / 2;
    let point = manifest.point.as_ref();
    let (width, height) = point.map_or((side, side), Point::size);
    let (rows, columns) = manifest.latent_size(width, height);
    let mut symbols = Symbols::zeros(manifest.channels, rows, columns);
    let mut seed = 1_u32;
    for symbol in &mut symbols.data {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *symbol = match seed >> 28 {
            0 => 1,
            1 => -1,
            2 if seed & 0x0700_0000 == 0 => 3,
            _ => 0,
        };
    }
    let code = entropy::encode(&symbols, &bundle.tables[quality]);
    let code = code.map_err(|error| RunError::Measure(error.to_string()))?;
    let slot = PictureSlot {
        form: Form::File {
            media: MediaType::Jpeg,
            text: Text::Raw,
        },
        width: side,
        height: side,
        color: Color::Rgb,
        orientation: 1,
        max_side: 0,
        code,
    };
    let frame = Frame {
        bundle: bundle.digest.short(),
        quality: quality as u8,
        content_type: Some(MediaType::Jpeg.mime().to_owned()),
        skeleton: Skeleton {
            offsets: vec![0],
            ..Skeleton::default()
        },
        slots: vec![Slot::Picture(slot)],
    };
    Ok(frame.encode().into())
}
