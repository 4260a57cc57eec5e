//! A small image classification server, for the demo and the end-to-end tests of Sidecod: it
//! stands for the server that somebody already has, and knows nothing of Sidecod.
//!
//! One photo goes through [`picture`] (file to the model's input), [`model`] (input to classes) and
//! [`server`] (HTTP around both).

pub mod journal;
pub mod model;
pub mod picture;
pub mod server;
