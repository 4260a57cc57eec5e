//! Measures Sidecod on the real thing: the built programs, a real model server, real photos.

pub mod chaos;
pub mod client;
pub mod fidelity;
pub mod latency;
pub mod load;
pub mod netns;
pub mod offload;
pub mod overhead;
pub mod photos;
pub mod process;
pub mod sounds;
pub mod stack;
