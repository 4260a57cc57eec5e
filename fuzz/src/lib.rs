//! What the fuzz targets do with their bytes. The main workspace runs the same functions over the
//! corpora as plain tests: `wire/tests/corpora.rs`, `sidecar/tests/corpora.rs`.

#[cfg(feature = "config")]
pub mod config;
pub mod wire;
