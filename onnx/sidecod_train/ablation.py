"""What each part of the light codec buys: the same short training with one thing changed at a time.

`python -m sidecod_train ablation --config configs/ablation.toml --data PHOTOS --out FOLDER` prints the bytes
that each variant needs for the same answers, as a Markdown table. A variant that stands in
FOLDER/ablation.jsonl is not trained again.
"""

import argparse
import copy
import functools
import json
from pathlib import Path

import numpy as np
import torch

from . import config as configuration
from . import data, losses
from .teacher import Teacher
from .train import Trainer

# Name: keys of the configuration that it changes.
VARIANTS = {
    "as configured": {},
    "as configured, another seed": {"seed": 2},
    "encoder: one convolution, no residual": {"light.inner": 0},
    "encoder: residual of 96 channels": {"light.inner": 96},
    "stride 16, 96 channels": {"light.stride": 16, "light.channels": 96},
    "32 channels": {"light.channels": 32},
    "64 channels": {"light.channels": 64},
    "decoder: 2 blocks": {"light.blocks": 2},
    "decoder: twice as wide": {"light.width": 128, "light.fine": 64},
    "loss: without features": {"loss.features": 0.0},
    "loss: without the answer": {"loss.answer": 0.0},
    "loss: without features and answer": {"loss.features": 0.0, "loss.answer": 0.0},
    "one quality: the third alone": {"light.steps": [16.0]},
}
# Divergences, in nats, at which bytes are compared.
DIVERGENCES = (0.3, 0.2)
# Side of the crops that are measured, and the shorter sides of the photos that they are the middle of.
CROP, SIDES = 224, (256, 384)


def changed(config, changes):
    """A copy of `config` with other values at dotted keys."""
    out = copy.deepcopy(config)
    for key, value in changes.items():
        *parts, name = key.split(".")
        setattr(functools.reduce(getattr, parts, out), name, value)
    return out


@torch.no_grad()
def measure(codec, teacher, photos):
    """[[bytes under the training's own rate model, KL in nats, squared error]] of each quality, means over crops of `photos`."""
    shown = [data.centre_crop(data.short_side(photo, side), CROP) for photo in photos for side in SIDES]
    pixels = [torch.from_numpy(data.pixels(crop))[None] for crop in shown]
    answers = [teacher(crop)[0] for crop in pixels]
    rows = []
    for index in range(len(codec.names)):
        quality, sums = torch.tensor([index]), np.zeros(3)
        for crop, answer in zip(pixels, answers):
            decoded, bits = codec(crop, quality)
            decoded = (decoded.clamp(0, 1) * 255).round() / 255
            divergence = losses.answer(teacher(decoded)[0], answer, 1.0)
            sums += [float(bits) / 8, float(divergence), float(losses.pixels(decoded, crop))]
        rows.append((sums / len(pixels)).tolist())
    return rows


def bytes_at(rows, divergence):
    """Bytes at which the curve through `rows` has this divergence, between its neighbours' logarithms; None where it does not reach."""
    curve = sorted((kl, size) for size, kl, _ in rows)
    kls, sizes = np.log(np.array(curve).T)
    if not kls[0] <= np.log(divergence) <= kls[-1]:
        return None
    return float(np.exp(np.interp(np.log(divergence), kls, sizes)))


def table(results):
    """The results as Markdown, beside the first of them."""
    head = [f"KL {divergence:.2f}" for divergence in DIVERGENCES]
    lines = [f"| variant | bytes at {' | bytes at '.join(head)} | finest: bytes, KL, PSNR | coarsest |"]
    lines.append("|---|" + "---|" * (len(head) + 2))
    first = [bytes_at(results[0]["rows"], divergence) for divergence in DIVERGENCES]
    for result in results:
        cells = [result["variant"]]
        for divergence, standard in zip(DIVERGENCES, first):
            size = bytes_at(result["rows"], divergence)
            ratio = f" ({size / standard:.2f})" if size and standard else ""
            cells.append(f"{size:.0f}{ratio}" if size else "not reached")
        for size, kl, error in (result["rows"][0], result["rows"][-1]):
            cells.append(f"{size:.0f}, {kl:.3f}, {-10 * np.log10(error):.1f} dB")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments=None):
    """Trains and measures the variants that are not known yet; returns all results."""
    parser = argparse.ArgumentParser(prog="sidecod_train ablation", description=__doc__)
    parser.add_argument("--config", required=True, help="TOML file of the light net")
    parser.add_argument("--data", help="folder of photos, with index.csv or without")
    parser.add_argument("--out", required=True, help="folder of results and checkpoints")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), metavar="VARIANT", help="names from the table")
    args = parser.parse_args(arguments)
    config = configuration.load(args.config, args.data)
    if config.net != "light":
        raise configuration.ConfigError(f"{args.config}: net: variants are of the light net, not of {config.net!r}")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "ablation.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    results = {result["variant"]: result for result in map(json.loads, lines)}
    paths = data.splits(config.data.dir)
    photos = {split: data.load_photos(paths[split], config.data.max_side) for split in ("train", "val")}
    wanted = args.only or list(VARIANTS)
    for number, variant in enumerate(VARIANTS):
        if variant not in wanted or variant in results:
            continue
        print(variant, flush=True)
        trained = changed(config, VARIANTS[variant])
        run = out / str(number)
        trainer = Trainer(trained, photos["train"], [Teacher(t) for t in trained.teacher], run)
        if trainer.checkpoint.exists():
            trainer.resume()
        trainer.train()
        rows = measure(trainer.averaged(), Teacher(config.teacher[0]).eval(), data.whole(photos["val"]))
        results[variant] = {"variant": variant, "changes": VARIANTS[variant], "rows": rows}
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(results[variant]) + "\n")
    ordered = [results[variant] for variant in VARIANTS if variant in results]
    print(table(ordered))
    return ordered
