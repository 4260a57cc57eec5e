"""Folds the residual of a light bundle's encoder into the convolution beside it.

Trained under the losses here, the residual comes out all but linear in the patch itself. What it adds is
fitted by least squares over training photos: nearly the same symbols for half of the arithmetic, and no
rows of the neighbouring strip. Decoder and tables stay.
"""

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from . import data, evaluate, export, warm, wide
from . import config as configuration
from .nets import light
from .teacher import Teacher

# Shorter sides in pixels of the photos that are fitted to.
SIDES = (256, 384, 640)
# Of the mean energy of a pixel: directions of a patch with less than about this keep the convolution's own weights.
RIDGE = 1e-6


def encoder_of(bundle):
    """(the encoder, its LightConfig) of the bundle in folder `bundle`."""
    held = {name.removeprefix("encoder."): value for name, value in warm.weights(bundle).items() if name.startswith("encoder.")}
    if "into.weight" not in held:
        raise warm.StartError(f"{bundle}: its encoder has no residual")
    channels, _, _, stride = held["patch.weight"].shape
    config = configuration.LightConfig(stride=stride, channels=channels, inner=len(held["into.bias"]))
    encoder = light.Encoder(config)
    encoder.load_state_dict({name: value.reshape(encoder.state_dict()[name].shape) for name, value in held.items()})
    return encoder.eval(), config


@torch.no_grad()
def fitted(encoder, config, photos):
    """An encoder without residual that comes nearest to `encoder` on `photos`."""
    side, size = config.stride, 3 * config.stride**2
    energy, moved = torch.zeros(size + 1, size + 1).double(), torch.zeros(size + 1, config.channels).double()
    for photo in tqdm(photos, desc="photos"):
        shortest = min(photo.size)
        for shorter in [shorter for shorter in SIDES if shorter <= shortest] or [shortest]:
            padded = data.pad_to(data.pixels(data.short_side(photo, shorter)), side)
            pixels = torch.from_numpy(np.ascontiguousarray(padded))[None]
            patches = warm.patches(pixels, side)
            patches = torch.cat([patches, torch.ones(len(patches), 1)], 1)
            added = (encoder(pixels) - encoder.patch(pixels))[0].flatten(1).t().double()
            energy += patches.t() @ patches
            moved += patches.t() @ added
    ridge = RIDGE * energy.diagonal().mean() * torch.eye(size + 1).double()
    solved = torch.linalg.solve(energy + ridge, moved).float()
    out = light.Encoder(dataclasses.replace(config, inner=0))
    out.spread.copy_(encoder.spread)
    out.patch.weight.copy_(encoder.patch.weight + solved[:-1].t().reshape(encoder.patch.weight.shape))
    out.patch.bias.copy_(encoder.patch.bias + solved[-1])
    return out.eval()


class _Coder:
    """What `export.write_encoder` and `export.symbols_of` want of a codec."""

    def __init__(self, encoder, config, gains):
        self.encoder, self.stride, self.gains = encoder, config.stride, torch.tensor(gains)

    def symbols(self, pixels, quality):
        """int16 symbols [C, h, w] of float32 [1, 3, H, W] at the quality of this index."""
        with torch.no_grad():
            return light.rounded(self.encoder(pixels) * self.gains[quality][None, :, None, None])


def main(arguments=None):
    """Writes the bundle; returns its manifest."""
    parser = argparse.ArgumentParser(prog="sidecod_train fold", description=__doc__)
    parser.add_argument("--config", required=True, help="TOML file of the bundle's training: teacher, name and version")
    parser.add_argument("--bundle", required=True, help="bundle of the light net")
    parser.add_argument("--data", required=True, help="folder of photos, with index.csv or without")
    parser.add_argument("--out", required=True, help="folder of the new bundle")
    args = parser.parse_args(arguments)
    config = configuration.load(args.config, args.data)
    bundle, out = Path(args.bundle), Path(args.out)
    paths = data.splits(config.data.dir)
    photos = {split: data.whole(data.load_photos(paths[split], config.data.max_side)) for split in ("train", "val")}
    encoder, sizes = encoder_of(bundle)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    gains = [quality["gain"] for quality in manifest["qualities"]]
    before = _Coder(encoder, sizes, gains)
    after = _Coder(fitted(encoder, sizes, photos["train"]), sizes, gains)
    out.mkdir(parents=True, exist_ok=True)
    for path in bundle.iterdir():
        if path.resolve() != (out / path.name).resolve():
            shutil.copyfile(path, out / path.name)
    export.write_encoder(after, out / "encoder.onnx")
    decoder, tables = export.load_decoder(out / "decoder.pt"), wide.read_all((out / "tables.bin").read_bytes())
    teacher = Teacher(config.teacher[0]).eval()
    for index, quality in enumerate(manifest["qualities"]):
        same = []

        def encode(pixels, index=index, same=same):
            symbols = export.symbols_of(after, pixels[0], index)
            same.append(np.mean(symbols == export.symbols_of(before, pixels[0], index)))
            return symbols

        def decode(symbols, index=index):
            with torch.no_grad():
                return decoder(torch.from_numpy(symbols[None].astype(np.float32)), torch.tensor([index])).numpy()

        measured = evaluate.report(encode, decode, teacher, photos["val"], tables[index], "cpu")
        quality["report"].update(measured)
        print(f"{quality['name']}: {100 * np.mean(same):.1f} % of the symbols as before; {measured}")
    manifest |= {"name": config.name, "version": config.version, "halo": 0}
    export.write_manifest(manifest, out)
    return manifest
