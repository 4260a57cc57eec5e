//! The built programs with certificates, with the edge's own bundle, and with configurations that
//! change while they run.

#![allow(clippy::float_cmp)] // counters are whole numbers
#![allow(clippy::unnecessary_debug_formatting)] // TOML quotes and escapes strings as Debug does
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test fails by panicking

mod bundle;
mod clock;
mod init;
mod programs;
mod reload;
mod tls;

/// One set of programs at a time: decoding takes all the cores that there are.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
