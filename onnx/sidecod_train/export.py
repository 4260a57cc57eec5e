"""Writes a codec bundle: encoder, decoder in two forms, tables, manifest, log."""

import copy
import hashlib
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from tqdm import tqdm

from . import data, evaluate, wide
from .count import count

OPSET = 13


def _onnx(module, example, path, inputs, output, axes):
    """Exports through TorchScript; `axes` names the sizes that are left open."""
    arguments = {
        "input_names": list(inputs),
        "output_names": [output],
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
    """encoder.onnx: `pixels` [1, 3, H, W] -> `latent` [1, C, H/stride, W/stride], convolutions alone."""
    axes = {"pixels": {2: "height", 3: "width"}, "latent": {2: "latent_height", 3: "latent_width"}}
    side = 8 * codec.stride
    _onnx(codec.encoder, torch.zeros(1, 3, side, side), path, ("pixels",), "latent", axes)


def write_decoder(decoder, codec, script, graph):
    """decoder.pt and decoder.onnx: `symbols` [N, C, h, w] -> `pixels` [N, 3, stride h, stride w].

    A codec of several qualities has a second input, `quality` [N], int64. Weights are stored in
    half precision, as `halved` has made them: whoever loads decoder.pt makes them float32 (`load_decoder`), decoder.onnx does so itself.
    """
    # In the order in which a CPU convolves faster, some tenth at the size of a crop.
    stored = copy.deepcopy(decoder).to(memory_format=torch.channels_last)
    for weight in stored.parameters():
        weight.data = weight.data.half()
    torch.jit.script(stored).save(str(script))
    axes = {
        "symbols": {0: "batch", 2: "latent_height", 3: "latent_width"},
        "pixels": {0: "batch", 2: "height", 3: "width"},
    }
    example, names = [torch.zeros(2, codec.channels, 16, 24)], ["symbols"]
    if len(codec.names) > 1:
        example.append(torch.zeros(2, dtype=torch.int64))
        names.append("quality")
        axes["quality"] = {0: "batch"}
    _onnx(decoder, tuple(example), graph, names, "pixels", axes)
    _store_halves(graph)


def halved(decoder):
    """`decoder` with weights as half precision holds them; steps and statistics stay as they are."""
    out = copy.deepcopy(decoder)
    for weight in out.parameters():
        weight.data = weight.data.half().float()
    return out


def load_decoder(path):
    """The TorchScript decoder in the file `path`, on the CPU, in float32."""
    return torch.jit.load(str(path), map_location="cpu").float()


def _store_halves(path):
    """Stores in half precision what loses nothing by it in the ONNX file `path`; a cast stands before each use."""
    model = onnx.load(str(path))
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or not tensor.dims:
            continue
        value = numpy_helper.to_array(tensor)
        if np.array_equal(value.astype(np.float16).astype(np.float32), value):
            name, stored = tensor.name, f"{tensor.name}_half"
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), stored))
            casts.append(onnx.helper.make_node("Cast", [stored], [name], name=f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))


def symbols_of(codec, photo, quality=0):
    """int16 symbols [C, h, w] of float32 `photo` [3, H, W], padded as the device sidecar pads."""
    padded = data.pad_to(photo, codec.stride)
    return codec.symbols(torch.from_numpy(np.ascontiguousarray(padded))[None], quality)


def training_symbols(codec, quality, config, photos):
    """Symbols (offset 0) of whole training photos at the scales of `config`, a TablesConfig."""
    # A cut-out is no picture by itself.
    photos, out = data.whole(photos)[: config.photos], []
    for side in config.sides:
        for photo in photos:
            if 0 < side < min(photo.size):
                photo = data.short_side(photo, side)
            elif side:
                continue
            out.append(symbols_of(codec, data.pixels(photo), quality))
    return out


def cheapest_tables(codec, quality, symbols, config):
    """(tables, figures, offset): of the offsets from index to symbol the one that codes shorter."""
    if config.net == "light":
        unit = codec.unit(torch.tensor([quality]))
        return *wide.learn(codec.rate, quality, unit, symbols, config.tables.steps, config.seed), 0
    best = None
    for offset in codec.offsets():
        moved = [s - np.int16(offset) for s in symbols]
        tables, figures = count(moved, config.tables.bins, sample=config.tables.sample, seed=config.seed)
        if best is None or figures["bits_per_symbol"] < best[1]["bits_per_symbol"]:
            best = (tables, figures, offset)
    return best


def code_of(folder):
    """(tables and their figures for each quality, gains of each) of the light bundle in `folder`."""
    folder = Path(folder)
    qualities = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["qualities"]
    tables = wide.read_all((folder / "tables.bin").read_bytes())
    figures = [{"bits_per_symbol": quality["report"]["bits_per_symbol"]} for quality in qualities]
    return list(zip(tables, figures)), [quality["gain"] for quality in qualities]


def bundle(trainer, train_photos, val_photos, out, code=None):
    """Writes the bundle of `trainer` into folder `out`; returns the manifest.

    `code` is the folder of a light bundle whose code it keeps: encoder, gains and tables, byte for byte.
    """
    config, out = trainer.config, Path(out)
    out.mkdir(parents=True, exist_ok=True)
    codec = trainer.averaged()
    # A codec of several qualities has one offset, 0.
    sets, offset = [], 0
    if code is None:
        for quality in tqdm(range(len(codec.names)), desc="entropy tables"):
            symbols = training_symbols(codec, quality, config.tables, train_photos)
            *learned, offset = cheapest_tables(codec, quality, symbols, config)
            sets.append(learned)
        write_encoder(codec, out / "encoder.onnx")
        (out / "tables.bin").write_bytes(b"".join(tables.to_bytes() for tables, _ in sets))
        quantizer, gains = codec.manifest(offset)
    else:
        quantizer, _ = codec.manifest(offset)
        sets, gains = code_of(code)
        for name in ("encoder.onnx", "tables.bin"):
            shutil.copyfile(Path(code) / name, out / name)
    decoder = halved(codec.symbol_decoder(offset))
    write_decoder(decoder, codec, out / "decoder.pt", out / "decoder.onnx")

    device, qualities = trainer.device, []
    on_device = decoder.to(device)
    for quality, (name, gain, (tables, figures)) in enumerate(zip(codec.names, gains, sets)):

        def decode(symbols, quality=quality):
            inputs = [torch.from_numpy(symbols[None].astype(np.float32)).to(device)]
            if len(codec.names) > 1:
                inputs.append(torch.full((1,), quality, dtype=torch.int64, device=device))
            return on_device(*inputs).cpu().numpy()

        measured = evaluate.report(
            lambda pixels, quality=quality: symbols_of(codec, pixels[0], quality) - np.int16(offset),
            decode,
            trainer.teachers[0],
            val_photos,
            tables,
            device,
        )
        measured.update({key: round(value, 4) for key, value in figures.items()})
        measured["steps"] = trainer.step
        qualities.append({"name": name, "gain": gain, "report": measured})
    manifest = {
        "name": config.name,
        "version": config.version,
        "domain": "image",
        "license": config.bundle.license,
        "trained_on": config.bundle.trained_on,
        "stride": codec.stride,
        "channels": codec.channels,
        "halo": codec.halo,
        "tile": config.bundle.tile,
        "overlap": config.bundle.overlap,
        "quantizer": quantizer,
        "qualities": qualities,
    }
    write_manifest(manifest, out)
    log = trainer.run / "train.jsonl"
    if log.exists() and log.resolve() != (out / "train.jsonl").resolve():
        shutil.copyfile(log, out / "train.jsonl")
    return manifest


def write_manifest(manifest, out):
    """manifest.json in the bundle's folder `out`, with the digests of the files that lie there."""
    manifest["files"] = {name: digest(out / name) for name in FILES}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


FILES = ("encoder.onnx", "decoder.pt", "decoder.onnx", "tables.bin")


def digest(path):
    """{"sha256", "bytes"} of a file."""
    content = Path(path).read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
