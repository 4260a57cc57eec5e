//! Settings of the allocator and of oneDNN that are read from the environment only, before `main`.
//!
//! Every new picture size makes libtorch allocate and free large blocks of other sizes, and oneDNN
//! keep what it compiled for the shape. With the defaults of both, the memory of the process grew
//! from 235 to 800 MB over 300 sizes; with these, from 154 to 220 MB, and to 250 MB over 600.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Large blocks go back to the system when they are freed; shapes that were not used for long are
/// forgotten.
const SETTINGS: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "262144"),
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64"),
];

/// Starts the program again, as the same process, unless it has these settings. Those that the
/// environment has already stay. Call it before anything is opened or started.
///
/// # Errors
/// What the system said. The program can go on without.
pub fn settle() -> io::Result<()> {
    let missing = || {
        SETTINGS
            .into_iter()
            .filter(|(name, _)| std::env::var_os(name).is_none())
    };
    if missing().next().is_none() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut again = Command::new(std::env::current_exe()?);
    again.arg0(name).args(arguments).envs(missing());
    Err(again.exec())
}
