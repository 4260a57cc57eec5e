//! The built instrument on the photos that the repository carries.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::process::Command;

use serde_json::Value;
use sidecod_bench::stack::workspace;

fn fidelity(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_sidecod-bench"))
        .current_dir(workspace())
        .args(["fidelity", "--data", "examples/photos", "--teacher"])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn curves_of_peers_and_bundles() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let output = fidelity(&[
        "examples/model-server/model/efficientnet-lite0.onnx",
        "--max-crops",
        "4",
        "--peers",
        "jpeg-420,avif-s10",
        "--out",
        out,
        "--json",
    ]);
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{says}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["codecs"].as_array().unwrap();
    let curve = |name: &str| -> Vec<(f64, f64, f64)> {
        let rows = rows.iter().filter(|row| row["name"] == name);
        let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
        rows.map(|row| {
            (
                number(row, "bytes_mean"),
                number(row, "kl"),
                number(row, "psnr"),
            )
        })
        .collect()
    };
    for peer in ["jpeg-420", "avif-s10"] {
        let curve = curve(peer);
        assert!(curve.len() > 5);
        assert!(
            curve.is_sorted_by(|a, b| a.0 < b.0 && a.2 < b.2),
            "{curve:?}"
        );
        assert!(curve[0].1 > 3.0 * curve[curve.len() - 1].1, "{curve:?}");
    }
    let ours = curve("photo-v0");
    assert_eq!(ours.len(), 1);
    assert!((500.0..8000.0).contains(&ours[0].0), "{ours:?}");
    for target in ["kl_0.10", "kl_0.05", "agreement_0.85", "agreement_0.90"] {
        // Four crops may be too easy for a target; where a curve gets there, it is within its ladder.
        let reached = &report["bytes_at"][target]["jpeg-420"];
        let ladder = curve("jpeg-420");
        let within = |bytes| (ladder[0].0..=ladder[ladder.len() - 1].0).contains(&bytes);
        assert!(reached.is_null() || reached.as_f64().is_some_and(within));
    }
    assert!(rows.iter().all(|row| row["encode_ms"].as_f64() > Some(0.0)));
    for file in [
        "fidelity.csv",
        "fidelity.json",
        "fidelity.svg",
        "fidelity.png",
    ] {
        assert!(folder.path().join(file).metadata().unwrap().len() > 100);
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let missing = fidelity(&["nowhere.onnx"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nowhere.onnx"));
    let classifier = "examples/model-server/model/efficientnet-lite0.onnx";
    let other_kind = fidelity(&[classifier, "--detector", classifier]);
    assert!(!other_kind.status.success());
    let says = String::from_utf8_lossy(&other_kind.stderr);
    assert!(says.contains("efficientnet-lite0.onnx"), "{says}");
    let unknown = fidelity(&[classifier, "--peers", "gif"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no peer called gif"));
}
