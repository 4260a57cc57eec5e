//! What processes have used, as the kernel counts it.

use anyhow::{Context, Result};

use crate::process::mib;

/// Clock ticks of a second in `/proc`; Linux has had no other number for programs.
const TICKS: f64 = 100.0;

/// Use of some processes together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    pub(super) peak_mib: f64,
}

/// The use of a process and its children.
pub(super) fn of(process: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{process}/{file}");
        std::fs::read_to_string(&path).with_context(|| path)
    };
    let stat = read("stat")?;
    // The second field is the name in brackets, which may hold anything.
    let fields = stat.rsplit_once(") ").context("stat")?.1;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<f64, _>>()?;
    let mut usage = Usage {
        cpu_seconds: ticks / TICKS,
        peak_mib: mib(process, "VmHWM").context("VmHWM")?,
    };
    for child in read(&format!("task/{process}/children"))?.split_whitespace() {
        let child = of(child.parse()?)?;
        usage.cpu_seconds += child.cpu_seconds;
        usage.peak_mib += child.peak_mib;
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let before = of(std::process::id()).unwrap();
        assert!(before.peak_mib > 1.0);
        let mut sum = 0_u64;
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(100) {
            sum = std::hint::black_box(sum + 1);
        }
        let after = of(std::process::id()).unwrap();
        assert!(after.cpu_seconds > before.cpu_seconds);
    }
}
