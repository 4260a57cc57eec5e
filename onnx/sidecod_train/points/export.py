"""A point on disk: the recipe that training leaves, and the bundle that is made of it and the model."""

import json
import warnings
from pathlib import Path

import numpy as np
import torch

from .. import data
from ..count import count, without_context
from ..export import OPSET, digest
from . import cut
from .net import Codec

# What training leaves: weights in half precision, entropy tables, names and figures, and the log.
WEIGHTS, TABLES, RECIPE, LOG = "codec.npz", "tables.bin", "point.json", "train.jsonl"
# Bytes of a frame of one slot beside its code.
FRAME = 36


def save(codec, folder):
    """codec.npz of a settled codec. Returns the codec as it reads back: rounded to half precision."""
    weights = {name: value.numpy().astype(np.float16) for name, value in codec.state_dict().items()}
    np.savez_compressed(folder / WEIGHTS, **weights)
    return load(folder, codec.sizes)


def load(folder, sizes):
    """The codec of a recipe."""
    sizes = dict(sizes)
    codec = Codec(tuple(sizes.pop("feature")), **sizes)
    with np.load(folder / WEIGHTS, allow_pickle=False) as file:
        codec.load_state_dict({name: torch.from_numpy(file[name].astype(np.float32)) for name in file.files})
    return codec.settle()


def tables(codec, features, bins=12, sample=4000):
    """Entropy tables of each quality for float32 features [N, F, H, W]: ([Tables], [figures])."""
    sets, figures = [], []
    for quality in range(codec.qualities):
        symbols = [s for part in features.split(64) for s in codec.symbols(part, quality)]
        # A latent of one place has no neighbours.
        alone = codec.latent == (1, 1)
        made, figure = without_context(symbols) if alone else count(symbols, bins, sample=sample)
        sets.append(made)
        figures.append(figure)
    return sets, figures


@torch.no_grad()
def report(model, tail, tensor, interface, codec, sets, photos):
    """What each quality reaches on centre crops of `photos`: a list of figures."""
    crops = [data.pixels(data.centre_crop(data.short_side(p, interface.input["short_side"]), interface.side)) for p in photos]
    rows = [[] for _ in sets]
    for crop in crops:
        logits, (feature,) = model.graph(torch.from_numpy(interface.scale(crop[None])), [tensor])
        wanted = logits.double().log_softmax(-1)[0]
        top = int(wanted.argmax())
        for quality, made in enumerate(sets):
            symbols = codec.symbols(feature, quality)
            decoded = codec.decoder(torch.from_numpy(symbols.astype(np.float32)), torch.tensor([quality]))
            got = tail(decoded).double().log_softmax(-1)[0]
            size = made.code_length(symbols[0]).sum() / 8 + FRAME
            error = float((decoded - feature).square().mean() / feature.var())
            divergence = float((wanted.exp() * (wanted - got)).sum())
            agrees, stays = int(got.argmax()) == top, top in got.topk(min(5, len(got))).indices.tolist()
            rows[quality].append((size, agrees, stays, divergence, error))
    keys = ("estimated_bytes", "top1_agreement", "top1_in_top5", "kl_nats", "feature_error")
    means = [dict(zip(keys, (round(float(v), 4) for v in np.mean(row, 0)))) for row in rows]
    return [{"photos": len(photos), **mean} for mean in means]


def build(model, interface, recipe, out):
    """Writes the bundle of the recipe in folder `recipe` into folder `out`; returns the manifest."""
    recipe, out = Path(recipe), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    says = json.loads((recipe / RECIPE).read_text(encoding="utf-8"))
    if model.digest()["sha256"] != says["model"]["sha256"]:
        raise cut.CutError(f"{recipe}: was made for another model: {says['model']['name']}, SHA-256 {says['model']['sha256']}")
    codec, tensor = load(recipe, says["codec"]), says["tensor"]
    cut.write(model, tensor, out)
    side = [int(v) for v in codec.latent]
    feature, latent = torch.zeros(1, *codec.feature), torch.zeros(2, codec.channels, *side)
    quality = torch.zeros(2, dtype=torch.int64)
    _onnx(codec.encoder, feature, out / "encoder.onnx", ["feature"], "latent", {})
    torch.jit.script(codec.decoder).save(str(out / "decoder.pt"))
    axes = {name: {0: "batch"} for name in ("symbols", "quality", "feature")}
    _onnx(codec.decoder, (latent, quality), out / "decoder.onnx", ["symbols", "quality"], "feature", axes)
    files = ["head.onnx", "tail.onnx", "tail.pt", "encoder.onnx", "decoder.pt", "decoder.onnx", TABLES]
    (out / TABLES).write_bytes((recipe / TABLES).read_bytes())
    if interface.labels is not None:
        (out / "labels.txt").write_bytes(interface.labels)
        files.append("labels.txt")
    gains = codec.log_gain.exp().tolist()
    manifest = {
        "name": says["name"],
        "version": says["version"],
        "domain": "feature",
        "license": says["license"],
        "trained_on": says["trained_on"],
        "stride": codec.stride,
        "channels": codec.channels,
        "halo": 0,
        "tile": max(side),
        "overlap": 0,
        "quantizer": {"kind": "round"},
        "qualities": [{**each, "gain": gain} for each, gain in zip(says["qualities"], gains)],
        "point": {
            "model": model.digest(),
            "tensor": tensor,
            "feature": list(codec.feature),
            "outputs": model.outputs,
            "input": interface.input,
            "answer": interface.answer,
        },
        "files": {name: digest(out / name) for name in files},
    }
    _write(out / "manifest.json", manifest)
    return manifest


def whole(model, interface, out):
    """Writes into folder `out` what runs the whole model on the device; returns the manifest."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    files = ["model.onnx"]
    (out / "model.onnx").write_bytes(model.path.read_bytes())
    if interface.labels is not None:
        (out / "labels.txt").write_bytes(interface.labels)
        files.append("labels.txt")
    manifest = {
        "name": model.path.stem,
        "domain": "model",
        "outputs": model.outputs,
        "input": interface.input,
        "answer": interface.answer,
        "files": {name: digest(out / name) for name in files},
    }
    _write(out / "manifest.json", manifest)
    return manifest


def _onnx(module, example, path, inputs, output, axes):
    arguments = {"input_names": inputs, "output_names": [output], "dynamic_axes": axes, "opset_version": OPSET}
    if int(torch.__version__.split(".")[0]) >= 2:
        arguments["dynamo"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example, str(path), **arguments)


def _write(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


__all__ = ["FRAME", "Tables", "build", "load", "report", "save", "tables", "whole"]
