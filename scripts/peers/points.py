"""Points of the example model for a server that has a point's tail, and answers in a form of its own."""

import hashlib
import json
import os
import shutil

import environments

ROOT = environments.ROOT
MODEL = "examples/model-server/model/efficientnet-lite0.onnx"
RECIPES = "onnx/points/efficientnet-lite0"
TAIL = "tail.pt"


def make(interface, folder):
    """Writes the bundles into a folder, as `make points` does for the example model server."""
    print(f"peers: making the points in {folder} ...", flush=True)
    python = environments.run([ROOT / "scripts/train_env"], "points want PyTorch").strip()
    split = [python, "-m", "sidecod_train", "split", "--model", MODEL, "--interface", interface]
    paths = {**os.environ, "PYTHONPATH": str(ROOT / "onnx")}
    environments.run([*split, "--points", RECIPES, "--out", folder], "see docs/points.md", cwd=ROOT, env=paths)


def without_tail(bundle, copy):
    """Copies a bundle, but for the tail that proxy-edge could run: one that loads it does not start."""
    shutil.copytree(bundle, copy)
    tail = b"no TorchScript"
    (copy / TAIL).write_bytes(tail)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][TAIL] = {"sha256": hashlib.sha256(tail).hexdigest(), "bytes": len(tail)}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy
