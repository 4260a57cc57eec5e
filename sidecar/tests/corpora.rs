//! The corpus of the fuzz target for configurations, run as a plain test.

#![allow(clippy::expect_used, missing_docs)] // a test fails by panicking

use std::path::Path;

#[path = "../../fuzz/src/config.rs"]
mod targets;

#[test]
fn configurations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/config");
    let mut count = 0;
    for file in std::fs::read_dir(&folder).expect("a corpus") {
        let path = file.expect("a file").path();
        println!("{}", path.display());
        targets::config(&std::fs::read(&path).expect("a file"));
        count += 1;
    }
    assert!(count > 1, "{} is empty", folder.display());
}
