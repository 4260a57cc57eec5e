//! The device sidecar.
//!
//! A request passes these modules in order; no step reaches back:
//!
//! 1. [`ingress`] takes it from the app in one of three ways, and says where it goes,
//! 2. [`intercept`] finds its [`route`],
//! 3. [`plan`] chooses the cheapest of the route's options,
//! 4. [`encode`] carries it out: decode the photos, run the encoder, code, or write smaller files,
//! 5. [`fallback`] sends it, over the [`link`] to the edge or past it, one step down at a time,
//! 6. [`relay`] gives the answer back to the app as it arrives.
//!
//! [`bundle`] keeps the codec that frames are made with, and fetches it from the edge.
//! [`trial`] sends some requests both ways and compares the answers, beside the flow: no app waits for it.
//! [`redirect`] sets the system's rules that send an app's connections to a transparent listener.
//! [`init`] writes a first configuration, [`profile`] measures what the options take on this machine.
//! [`inspect`] looks at a request of a file as the flow would, and says what it sees.

pub mod app;
pub mod bundle;
pub mod config;
pub mod encode;
mod expect;
pub mod fallback;
pub mod ingress;
pub mod init;
pub mod inspect;
pub mod intercept;
pub mod link;
pub mod plan;
pub mod profile;
pub mod redirect;
pub mod relay;
pub mod reload;
pub mod route;
pub mod trial;
pub mod upgrade;
