//! The edge sidecar: takes frames from devices, decodes the pictures in them, and gives the model
//! server the request that the app sent.
//!
//! A request passes these modules in order: [`serve`] admits it, [`restore`] and [`decode`] turn a
//! frame back into the body, [`upstream`] calls the model server, [`relay`] sees to the headers on
//! both ways. What is no frame is streamed through, but
//! for what is asked of the edge itself, which [`about`] answers.

pub mod about;
pub mod bundles;
pub mod cert;
pub mod config;
pub mod deadline;
pub mod decode;
pub mod fail;
pub mod init;
pub mod memory;
pub mod point;
pub mod profile;
pub mod relay;
pub mod reload;
pub mod restore;
pub mod run;
pub mod serve;
pub mod upgrade;
pub mod upstream;
pub mod workers;
