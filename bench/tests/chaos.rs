//! A short run of `sidecod-bench chaos`.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use sidecod_bench::chaos::{self, DOCUMENTED, Options};
use sidecod_bench::stack::workspace;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_answered_twice_or_wrongly() {
    let options = Options {
        seconds: 20,
        clients: 12,
        seed: 7,
    };
    let report = chaos::measure(options).await.unwrap();
    chaos::print(&report);
    assert!(report.is_good());
    assert!(
        report.troubles.values().sum::<u64>() > 2,
        "{:?}",
        report.troubles
    );
}

#[test]
fn every_error_that_counts_as_documented_is() {
    let text = std::fs::read_to_string(workspace().join("docs/resilience.md")).unwrap();
    for kind in DOCUMENTED {
        assert!(text.contains(&format!("`{kind}`")), "{kind}");
    }
}
