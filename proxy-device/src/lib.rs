//! The device sidecar.
//!
//! A request passes these modules in order; no step reaches back:
//!
//! 1. [`intercept`] takes it from the app and finds its [`route`],
//! 2. [`plan`] decides whether its inputs cross as codes,
//! 3. [`encode`] makes the frame: locate the inputs, decode the photos, run the encoder, code,
//! 4. [`fallback`] sends it, over the [`link`] to the edge or past it, one step down at a time,
//! 5. [`relay`] gives the answer back to the app as it arrives.
//!
//! [`inspect`] takes the first three for a request of a file, and says what it sees.

pub mod app;
pub mod config;
pub mod encode;
pub mod fallback;
pub mod inspect;
pub mod intercept;
pub mod link;
pub mod plan;
pub mod relay;
pub mod route;
