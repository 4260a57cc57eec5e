//! The runtime that a sidecar's requests are served on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Sockets that are looked after before what they brought is sent on. With more, as tokio would take
/// at once, many requests cross in one write, but the next program waits for all of them.
const SOCKETS_AT_ONCE: usize = 8;

/// A runtime with so many threads for sockets. Where there is one, it is the caller's own, which then
/// shares its tasks with nobody and takes a tenth less processor time for them.
///
/// # Errors
/// If a thread does not start.
pub fn start(worker_threads: usize) -> io::Result<Runtime> {
    let mut builder = if worker_threads == 1 {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder
        .worker_threads(worker_threads)
        .max_io_events_per_tick(SOCKETS_AT_ONCE)
        .enable_all()
        .build()
}
