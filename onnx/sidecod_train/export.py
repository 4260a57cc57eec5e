"""Writes a codec bundle: encoder, decoder in two forms, tables, manifest, log."""

import hashlib
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch

from . import data, evaluate
from .count import count
from .net import SymbolDecoder, plain

OPSET = 13


def _onnx(module, example, path, names, axes):
    """Exports through TorchScript, with a first axis and spatial sizes left open."""
    arguments = {
        "input_names": [names[0]],
        "output_names": [names[1]],
        "dynamic_axes": axes,
        "opset_version": OPSET,
        "do_constant_folding": True,
    }
    if int(torch.__version__.split(".")[0]) >= 2:
        arguments["dynamo"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example, str(path), **arguments)


def write_encoder(codec, path):
    """encoder.onnx: `pixels` [1, 3, H, W] -> `latent` [1, C, H/4, W/4], one plain convolution."""
    axes = {"pixels": {2: "height", 3: "width"}, "latent": {2: "latent_height", 3: "latent_width"}}
    _onnx(codec.encoder, torch.zeros(1, 3, 64, 64), path, ("pixels", "latent"), axes)


def write_decoder(decoder, channels, script, graph):
    """decoder.pt and decoder.onnx: `symbols` [N, C, h, w] -> `pixels` [N, 3, 4h, 4w]."""
    torch.jit.script(decoder).save(str(script))
    axes = {
        "symbols": {0: "batch", 2: "latent_height", 3: "latent_width"},
        "pixels": {0: "batch", 2: "height", 3: "width"},
    }
    _onnx(decoder, torch.zeros(2, channels, 16, 24), graph, ("symbols", "pixels"), axes)


def symbols_of(codec, photo, offset):
    """int16 symbols [C, h, w] of float32 `photo` [3, H, W], padded as the device sidecar pads."""
    padded = data.pad_to(photo, codec.encoder.stride[0])
    with torch.no_grad():
        latent = codec.encoder(torch.from_numpy(np.ascontiguousarray(padded))[None])
        return (codec.quantizer.indices(latent)[0].numpy() - offset).astype(np.int16)


def training_symbols(codec, config, photos):
    """Symbols (offset 0) of whole training photos at the scales of `config`, a TablesConfig."""
    out = []
    for side in config.sides:
        for photo in photos[: config.photos]:
            if 0 < side < min(photo.size):
                photo = data.short_side(photo, side)
            elif side:
                continue
            out.append(symbols_of(codec, data.pixels(photo), 0))
    return out


def cheapest_tables(symbols, config):
    """(tables, figures, offset): the offset from index to symbol is the one that codes shorter.

    With symbols from 0 the context knows which side of the middle an earlier channel was on; with
    symbols around 0 it knows how far from the middle it was.
    """
    best = None
    for offset in (0, config.model.centers // 2):
        moved = [s - np.int16(offset) for s in symbols]
        tables, figures = count(moved, -offset, config.model.centers, config.tables.bins, seed=config.seed)
        if best is None or figures["bits_per_symbol"] < best[1]["bits_per_symbol"]:
            best = (tables, figures, offset)
    return best


def bundle(trainer, train_photos, val_photos, out):
    """Writes the bundle of `trainer` into folder `out`; returns the manifest."""
    config, out = trainer.config, Path(out)
    out.mkdir(parents=True, exist_ok=True)
    codec = plain(trainer.codec)
    symbols = training_symbols(codec, config.tables, train_photos)
    tables, figures, offset = cheapest_tables(symbols, config)
    decoder = SymbolDecoder(codec, offset).eval()
    write_encoder(codec, out / "encoder.onnx")
    write_decoder(decoder, config.model.channels, out / "decoder.pt", out / "decoder.onnx")
    (out / "tables.bin").write_bytes(tables.to_bytes())

    on_device = SymbolDecoder(plain(trainer.codec), offset).eval().to(trainer.device)
    measured = evaluate.report(
        lambda pixels: symbols_of(codec, pixels[0], offset),
        lambda s: on_device(torch.from_numpy(s[None].astype(np.float32)).to(trainer.device)).cpu().numpy(),
        trainer.teacher,
        val_photos,
        tables,
        trainer.device,
    )
    measured.update({name: round(value, 4) for name, value in figures.items()})
    measured["steps"] = trainer.step
    manifest = {
        "name": config.name,
        "version": config.version,
        "domain": "image",
        "license": config.bundle.license,
        "trained_on": config.bundle.trained_on,
        "stride": config.model.stride,
        "channels": config.model.channels,
        "halo": 0,
        "tile": config.bundle.tile,
        "overlap": config.bundle.overlap,
        "quantizer": {
            "kind": "centers",
            "centers": [float(c) for c in decoder.centers],
            "offset": offset,
        },
        "qualities": [{"name": "only", "gain": [1.0] * config.model.channels, "report": measured}],
        "files": {name: digest(out / name) for name in FILES},
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    log = trainer.run / "train.jsonl"
    if log.exists() and log.resolve() != (out / "train.jsonl").resolve():
        shutil.copyfile(log, out / "train.jsonl")
    return manifest


FILES = ("encoder.onnx", "decoder.pt", "decoder.onnx", "tables.bin")


def digest(path):
    """{"sha256", "bytes"} of a file."""
    content = Path(path).read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
