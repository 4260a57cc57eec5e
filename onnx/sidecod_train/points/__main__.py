"""`python -m sidecod_train split`: head, tail and feature codec of a model, from a list of its layers."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from .. import data
from ..config import ConfigError
from . import export, interface
from .cut import Model, Part
from .net import Codec
from .train import Pool, train

# Random crops of photos that are set aside.
ASIDE = 96


def main(arguments=None):
    """Trains what `--at` names, and makes bundles of all recipes; returns their manifests by name."""
    args = _arguments().parse_args(arguments)
    torch.set_num_threads(args.threads)
    model = Model(args.model, tuple(args.input) if args.input else None)
    if args.list:
        for name, shape in model.places().items():
            print(f"{name}  {'x'.join(str(s) for s in shape)}, {4 * int(np.prod(shape))} bytes as numbers")
        return {}
    if not (args.interface and args.points):
        raise ConfigError("split: give --interface and --points, or --list to see where the model can be cut")
    around, points = interface.load(args.interface, model.shape), Path(args.points)
    if args.at:
        _train(args, model, around, points)
    manifests = {}
    if args.out:
        recipes = sorted(path.parent for path in points.glob(f"*/{export.RECIPE}"))
        if not recipes:
            raise ConfigError(f"{points}: no point there: train some with --at")
        for recipe in recipes:
            manifests[recipe.name] = export.build(model, around, recipe, Path(args.out) / recipe.name)
        manifests["local"] = export.whole(model, around, Path(args.out) / "local")
        print(f"{args.out}: {', '.join(manifests)}")
    return manifests


def _arguments():
    parser = argparse.ArgumentParser(prog="sidecod_train split", description=__doc__)
    parser.add_argument("--model", required=True, help="ONNX, or TorchScript (.pt), with one input and one output")
    parser.add_argument("--input", type=_numbers, help="shape of the input, 3,224,224, where the file does not tell it")
    parser.add_argument("--list", action="store_true", help="print where the model can be cut")
    parser.add_argument("--interface", help="TOML: what the model server makes of a photo, and of the output")
    parser.add_argument("--points", help="folder of recipes: written by training, read to make bundles")
    parser.add_argument("--out", help="folder of the bundles, one for each recipe and `local`")
    parser.add_argument("--at", type=lambda text: text.split(","), help="tensors or layers to cut at: trains a codec for each")
    parser.add_argument("--names", type=lambda text: text.split(","), help="names of these points (default: made of the layers')")
    parser.add_argument("--keep", type=lambda text: text.split(","), default=[],
                        help="more tensors or layers that a decoded feature has to keep, beside the points and the last map")
    parser.add_argument("--data", nargs="+", help="folders of photos to train on, with index.csv or without")
    parser.add_argument("--bytes", type=lambda text: [_numbers(part) for part in text.split("/")],
                        help="sizes of a code, one for each quality, the finest first: 400,250,150; "
                        "with / between them one list for each point")
    parser.add_argument("--stride", type=_numbers, help="of the encoder, for each point (default: by the feature's size)")
    parser.add_argument("--channels", type=_numbers, help="of the encoder, for each point (default: 48)")
    parser.add_argument("--side", type=_numbers, default=[1],
                        help="places of the encoder's maps that are transformed together, along each side, for each point")
    parser.add_argument("--waves", type=_numbers, default=[6], help="that are kept of such a transform, for each point")
    parser.add_argument("--blocks", type=_numbers, default=[4], help="residual blocks of the decoder, for each point")
    parser.add_argument("--steps", type=_numbers, default=[1000], help="training steps, for each point")
    parser.add_argument("--batch", type=_numbers, default=[8], help="features of a step, for each point")
    parser.add_argument("--lr", type=lambda text: [float(part) for part in text.split(",")], default=[5e-4],
                        help="learning rate at its highest, for each point")
    parser.add_argument("--decay", type=float, default=0.01, help="of the weights")
    parser.add_argument("--crops", type=int, default=2000, help="random crops whose features are kept in memory")
    parser.add_argument("--aside", type=int, default=10,
                        help="one training photo of so many is not trained on, and tells after which step the codec was best")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--version", default="0.1.0")
    parser.add_argument("--license", default="", help="of the bundles")
    parser.add_argument("--trained-on", default="", help="one line for the manifests")
    return parser


def _numbers(text):
    return [int(part) for part in text.split(",")]


def _each(values, index):
    """Of a list that has one value for all points or one for each."""
    return values[index] if len(values) > 1 else values[0]


def _train(args, model, around, points):
    if not (args.data and args.bytes):
        raise ConfigError("split: --at wants --data, the photos, and --bytes, the sizes of the codes")
    tensors = [model.tensor(name) for name in args.at]
    names = args.names or [tensor.strip("/").replace("/", ".").lstrip("_") for tensor in tensors]
    for option, values in (("--names", names), ("--bytes", args.bytes), ("--stride", args.stride),
                           ("--channels", args.channels), ("--side", args.side), ("--waves", args.waves),
                           ("--blocks", args.blocks), ("--batch", args.batch), ("--lr", args.lr), ("--steps", args.steps)):
        if values and len(values) not in (1, len(tensors)) or option == "--names" and len(values) != len(tensors):
            raise ConfigError(f"split: {option}: {len(values)} given, {len(tensors)} points")
    photos = {"train": [], "val": []}
    for folder in args.data:
        for split, paths in data.splits(folder).items():
            photos[split] += data.load_photos(paths, 1024)
    channels_last = {"memory_format": torch.channels_last}
    model.graph.to(**channels_last)
    # The last map before the answer is what all points have to keep.
    last = list(model.places())[-1]
    later = {model.tensor(name) for name in (*args.at, *args.keep)} | {last}
    kept = [name for name in model.places() if name in later]
    # Of cut-outs none is set aside: they are seen on other photos.
    whole = data.whole(photos["train"])
    if len(whole) < 2 or args.aside < 2:
        raise ConfigError("split: --data, --aside: there are to be photos to train on, and one or more beside them")
    apart = {id(photo) for photo in whole[min(args.aside // 2, len(whole) - 1) :: args.aside]}
    pool = Pool(model, around, kept, [photo for photo in photos["train"] if id(photo) not in apart], args.crops, args.seed)
    others = [photo for photo in whole if id(photo) in apart]
    aside = Pool(model, around, kept, others, min(ASIDE, 4 * len(others)), args.seed + 1)
    for index, (tensor, name) in enumerate(zip(tensors, names)):
        shape, targets, side = model.shapes[tensor], _each(args.bytes, index), _each(args.side, index)
        stride = _each(args.stride, index) if args.stride else 4 if shape[1] >= 56 else 2 if shape[1] >= 14 else 1
        if shape[1] % (stride * side) or shape[2] % (stride * side):
            raise ConfigError(f"{tensor}: is {list(shape)}, its sides are no multiples of --stride {stride} times --side {side}")
        torch.manual_seed(args.seed)
        codec = Codec(
            shape, stride, _each(args.channels, index) if args.channels else 48, qualities=len(targets),
            blocks=_each(args.blocks, index), side=side, waves=_each(args.waves, index) if side > 1 else 1,
        )
        tail = Part(model.part(tensor, False)).to(**channels_last)
        folder = points / name
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / export.LOG, "w", encoding="utf-8") as log:
            codec = train(pool, aside, tail, tensor, codec, [max(1, t - export.FRAME) for t in targets],
                          _each(args.steps, index), _each(args.batch, index), _each(args.lr, index), args.decay, args.seed, log)
        codec = export.save(codec, folder)
        # Tables are counted on so many crops that each channel has some ten thousand symbols, if there are.
        some = max(400, 20000 // (codec.latent[0] * codec.latent[1]))
        sets, figures = export.tables(codec, pool.take(tensor, np.arange(min(some, pool.count))))
        (folder / export.TABLES).write_bytes(b"".join(made.to_bytes() for made in sets))
        measured = export.report(model, tail, tensor, around, codec, sets, photos["val"])
        qualities = []
        for number, (row, figure) in enumerate(zip(measured, figures)):
            row.update({key: round(value, 4) for key, value in figure.items()}, steps=_each(args.steps, index))
            qualities.append({"name": f"q{number + 1}", "report": row})
            print(f"{name} q{number + 1}: {row}", flush=True)
        recipe = {
            "name": f"{model.path.stem}-{name}", "version": args.version, "license": args.license,
            "trained_on": args.trained_on, "model": model.digest(), "tensor": tensor, "codec": codec.sizes,
            "qualities": qualities,
        }
        (folder / export.RECIPE).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
