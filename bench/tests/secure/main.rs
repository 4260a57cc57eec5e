//! The built programs with certificates, with the edge's own bundle, and with configurations that
//! change while they run.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test fails by panicking

mod bundle;
mod init;
mod programs;
mod reload;
mod tls;

/// One set of programs at a time: decoding takes all the cores that there are.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
