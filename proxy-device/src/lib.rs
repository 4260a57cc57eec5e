//! The device sidecar.
//!
//! A request passes these modules in order; no step reaches back:
//!
//! 1. [`ingress`] takes it from the app in one of three ways, and says where it goes,
//! 2. [`intercept`] finds its [`route`],
//! 3. [`plan`] decides whether its inputs cross as codes,
//! 4. [`encode`] makes the frame: locate the inputs, decode the photos, run the encoder, code,
//! 5. [`fallback`] sends it, over the [`link`] to the edge or past it, one step down at a time,
//! 6. [`relay`] gives the answer back to the app as it arrives.
//!
//! [`trial`] sends some requests both ways and compares the answers, beside the flow: no app waits for it.
//! [`redirect`] sets the system's rules that send an app's connections to a transparent listener.
//! [`inspect`] looks at a request of a file as the flow would, and says what it sees.

pub mod app;
pub mod config;
pub mod encode;
mod expect;
pub mod fallback;
pub mod ingress;
pub mod inspect;
pub mod intercept;
pub mod link;
pub mod plan;
pub mod redirect;
pub mod relay;
pub mod route;
pub mod trial;
pub mod upgrade;
