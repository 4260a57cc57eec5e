//! The corpora of the fuzz targets, run as plain tests: what was once found stays found.

#![allow(clippy::expect_used, missing_docs)] // a test fails by panicking

use std::path::Path;

#[path = "../../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../../fuzz/src/wire.rs"]
mod targets;

/// Not a test: `cargo test --release --workspace --test corpora -- --ignored` writes the corpora anew.
#[test]
#[ignore = "writes files"]
fn write_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    seeds::write(&root).expect("files that can be written");
}

fn run(target: &str, with: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).expect("a corpus") {
        let path = file.expect("a file").path();
        // The name of the one that fails is the last that is printed.
        println!("{}", path.display());
        with(&std::fs::read(&path).expect("a file"));
        count += 1;
    }
    assert!(count > 1, "{} is empty", folder.display());
}

#[test]
fn frames() {
    run("frame", targets::frame);
}

#[test]
fn codes() {
    run("entropy", targets::entropy);
}

#[test]
fn bodies() {
    run("slots", targets::slots);
}

#[test]
fn manifests() {
    run("manifest", targets::manifest);
}

#[test]
fn tables() {
    run("tables", targets::tables);
}

#[test]
fn tensors() {
    run("tensor", targets::tensor);
}
