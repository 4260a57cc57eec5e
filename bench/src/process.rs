//! What the system tells of a running process.

/// MiB in a line of `/proc/PROCESS/status`: `VmRSS` is what it has in memory, `VmHWM` the most that it
/// had. None if it is not there.
#[must_use]
pub fn mib(process: u32, line: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let mut lines = status.lines();
    let value = lines.find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?;
    let kib: f64 = value.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}
