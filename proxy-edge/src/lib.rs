//! The edge sidecar: takes frames from devices, decodes the pictures in them, and gives the model
//! server the request that the app sent.
//!
//! A request passes these modules in order: [`serve`] admits it, [`restore`] and [`decode`] turn a
//! frame back into the body, [`upstream`] calls the model server, [`relay`] sees to the headers on
//! both ways. What is no frame is streamed through.

pub mod bundles;
pub mod config;
pub mod deadline;
pub mod decode;
pub mod fail;
pub mod memory;
pub mod relay;
pub mod restore;
pub mod run;
pub mod serve;
pub mod upgrade;
pub mod upstream;
pub mod workers;
