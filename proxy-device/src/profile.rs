//! `proxy-device profile`: what each option of the routes takes on this machine.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::HeaderMap;
use sidecod_sidecar::profile::{Profiler, Summary};
use sidecod_wire::media::{Color, MediaType, Picture, encode};
use sidecod_wire::profile::Profile;
use sidecod_wire::slot::Preset;

use crate::config::Config;
use crate::encode::{Coding, Looked, NotCoded};
use crate::inspect;
use crate::plan::option::{Choice, Kind};
use crate::plan::prepare::prepare;

/// Measures all options of the configuration's routes, each as a whole: from the photo's file to
/// what crosses the link. Pictures have at most this side.
///
/// # Errors
/// If the bundle cannot be opened, or an option fails.
pub fn measure(config: &Config, max_side: u32) -> Result<(Profile, Summary)> {
    let active = inspect::active(config)?;
    let codec = &active.codec;
    let offers = config.routes.iter().filter_map(|route| active.offer(route));
    let mut choices: Vec<Choice> = Vec::new();
    for choice in offers.flat_map(|offer| offer.choices.clone()) {
        if choice.kind != Kind::Passthrough && choices.iter().all(|c| c.name != choice.name) {
            choices.push(choice);
        }
    }
    choices.sort_by(|a, b| a.name.cmp(&b.name));
    let digest = codec.bundle().digest.to_string();
    let coding = Coding {
        shape: Preset::Auto.shape(),
        ..Coding::default()
    };
    let mut profiler = Profiler::new(choices.len(), max_side);
    for choice in &choices {
        let bundle = matches!(choice.kind, Kind::Input { .. }).then(|| digest.clone());
        profiler
            .part(&choice.name, bundle, |side| {
                let Some(looked) = photo(side, config)? else {
                    return Ok(None);
                };
                let coding = &coding;
                Ok(Some(move || {
                    match prepare(codec, coding, choice.kind, &looked) {
                        // The work was done.
                        Ok(_) | Err(NotCoded::NotSmaller { .. }) => Ok(()),
                        Err(error) => Err(anyhow::Error::from(error)),
                    }
                }))
            })
            .with_context(|| choice.name.clone())?;
    }
    Ok(profiler.finish())
}

/// A request with a photo of this side, unless the limits do not take it.
fn photo(side: u32, config: &Config) -> Result<Option<Arc<Looked>>> {
    let limits = &config.limits;
    if limits.check_picture(side, side).is_err() {
        return Ok(None);
    }
    let file = encode(&landscape(side), MediaType::Jpeg)?;
    let shape = Preset::Auto.shape();
    let (headers, body, most) = (HeaderMap::new(), Bytes::from(file), usize::MAX);
    Ok(Some(Arc::new(Looked::new(
        &headers, body, most, &shape, limits,
    )?)))
}

/// Noise with less in every finer octave, as in photos: JPEG and WebP need about as many bytes for
/// it, and work about as long on it, as on a photo.
fn landscape(side: u32) -> Picture {
    let at = |x: u32, y: u32, octave: u32| {
        let mut hash = x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b) ^ octave << 24;
        hash ^= hash >> 15;
        hash = hash.wrapping_mul(0x2c1b_3c6d);
        hash ^= hash >> 12;
        (hash & 0xff) as f32
    };
    let value = |x: u32, y: u32, channel: u32| {
        let (mut sum, mut weights) = (0.0, 0.0);
        for octave in 1..=6 {
            let cell = 1 << octave;
            let (left, top) = (x / cell, y / cell);
            let (u, v) = (
                (x % cell) as f32 / cell as f32,
                (y % cell) as f32 / cell as f32,
            );
            // Colour changes less than light.
            let key = octave * 4 + if octave < 4 { 0 } else { channel };
            let corner = |dx, dy| at(left + dx, top + dy, key);
            let upper = corner(0, 0) * (1.0 - u) + corner(1, 0) * u;
            let lower = corner(0, 1) * (1.0 - u) + corner(1, 1) * u;
            let weight = (cell as f32).sqrt();
            sum += (upper * (1.0 - v) + lower * v) * weight;
            weights += weight;
        }
        sum / weights
    };
    let rgb = (0..side)
        .flat_map(|y| (0..side).map(move |x| (x, y)))
        .flat_map(|(x, y)| [0, 1, 2].map(|channel| value(x, y, channel) as u8))
        .collect();
    Picture {
        width: side,
        height: side,
        color: Color::Rgb,
        orientation: 1,
        rgb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_landscape_is_coded_like_a_photo() {
        let picture = landscape(224);
        let file = sidecod_wire::media::encode_jpeg(&picture, 75).unwrap();
        // Photos take 5 to 20 kB.
        assert!(
            (4_000..30_000).contains(&file.len()),
            "{} bytes",
            file.len()
        );
    }
}
