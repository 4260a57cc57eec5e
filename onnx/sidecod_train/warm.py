"""Starting values from a bundle that is there already."""

from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from . import export
from .nets.light import UNIT

# Batches on which the rate model, which a bundle does not hold, is fitted.
RATE_STEPS, RATE_BATCH = 500, 8


# Weights whose second size is that of an input which may grow.
INPUTS = ("encoder.into.weight", "encoder.mix.weight", "encoder.back.weight", "decoder.into.weight")


class StartError(ValueError):
    """A bundle that a codec cannot start from; names the weight."""


def weights(folder):
    """{name in the light codec: tensor} of the bundle in `folder`."""
    folder = Path(folder)
    out = {
        f"encoder.{tensor.name}": torch.from_numpy(np.array(numpy_helper.to_array(tensor), dtype=np.float32))
        for tensor in onnx.load(str(folder / "encoder.onnx")).graph.initializer
    }
    for name, value in export.load_decoder(folder / "decoder.pt").state_dict().items():
        out["log_gain" if name == "step" else name] = -value.log() if name == "step" else value
    return out


def start(codec, folder, crops, with_decoder=True, linear=0.0):
    """Copies the weights of the bundle in `folder` into the light `codec`, which has started from `crops`.

    `crops` are float32 [N, 3, H, W] in 0..1. The codec may have more channels (they take up what the
    old ones lose), more residual blocks and a wider residual in the encoder: what is new changes
    nothing at first but the new channels. Anything else must be as in the bundle; without its decoder,
    which then begins as the best linear one, only what makes the code. Of a decoder that is copied, the
    share `linear` is the best linear one.
    """
    held, state = weights(folder), codec.state_dict()
    if not with_decoder:
        held = {name: value for name, value in held.items() if not name.startswith("decoder.") or name.endswith("spread")}
    old = len(held["encoder.patch.bias"])
    with torch.no_grad():
        for name, source in held.items():
            value = state.get(name)
            source = source.reshape(-1, 1, 1) if name.endswith("spread") else source
            if value is None or not _fits(name, source, value):
                wanted = "none" if value is None else tuple(value.shape)
                raise StartError(f"{folder}: {name} is {tuple(source.shape)}, the configuration's is {wanted}")
            if name in INPUTS:
                # What is new feeds nothing that is old.
                value[:, source.shape[1] :] = 0
            value[tuple(slice(size) for size in source.shape)] = source
        share = linear if with_decoder else 1.0
        if share:
            _linear(codec, old, crops, share)
        _new_channels(codec, old, crops)
    _fit_rate(codec, crops)


def _fits(name, source, value):
    """Whether `value` differs from `source` only where a codec may be larger."""
    mine, theirs = list(value.shape), list(source.shape)
    if len(mine) != len(theirs) or any(m < t for m, t in zip(mine, theirs)):
        return False
    if name.startswith("encoder.") or name in ("decoder.spread", "decoder.linear.weight"):
        return True
    # Channels are the second size of the other two.
    if name in ("decoder.into.weight", "log_gain"):
        mine[1] = theirs[1]
    return mine == theirs


def patches(pixels, side):
    """The patches of pixels [N, 3, H, W] that the places of a latent stand for, float64 [places, 3 side^2]."""
    return F.unfold(pixels, side, stride=side).transpose(1, 2).flatten(0, 1).double()


def _linear(codec, old, crops, share):
    """Moves the decoder by `share` towards the linear one that restores `crops` best.

    That is by least squares, from the first `old` channels at all qualities.
    """
    side, linear, last = codec.stride, codec.decoder.linear, codec.decoder.last
    products, moments = 0.0, 0.0
    for batch in crops.split(16):
        wanted = patches(batch, side)
        for index in range(len(codec.names)):
            latent, _ = codec.code(batch, torch.full((len(batch),), index))
            known = latent[:, :old].permute(0, 2, 3, 1).flatten(0, 2).double()
            known = torch.cat([known, torch.ones(len(known), 1)], 1)
            products, moments = products + known.t() @ known, moments + known.t() @ wanted
    solved = torch.linalg.solve(products, moments).float() / codec.decoder.small
    linear.weight[:old].lerp_(solved[:-1].reshape(old, 3, side, side), share)
    linear.bias.lerp_(solved[-1].reshape(3, -1).mean(1), share)
    for weight in (last.weight, last.bias):
        weight.mul_(1 - share)


def _new_channels(codec, old, crops):
    """Channels from `old` on: principal components of what the finest quality loses, and their best use."""
    side, count = codec.stride, codec.channels - old
    if count <= 0:
        return
    codec.eval()
    patch, linear = codec.encoder.patch, codec.decoder.linear
    linear.weight[old:] = 0
    if codec.encoder.has_residual:
        codec.encoder.back.weight[old:], codec.encoder.back.bias[old:] = 0, 0
    gone, seen = [], []
    for batch in crops.split(16):
        decoded = codec.decoder(codec.encoder(batch), torch.zeros(len(batch), dtype=torch.int64))
        gone.append(patches(batch - decoded, side))
        seen.append(patches(batch, side) - 0.5)
    gone, seen = torch.cat(gone), torch.cat(seen)
    # Only what the old channels cannot see is new.
    basis = torch.linalg.qr(patch.weight[:old].reshape(old, -1).double().t()).Q
    unseen = gone - (gone @ basis) @ basis.t()
    _, vectors = torch.linalg.eigh(unseen.t() @ unseen)
    rows = vectors.flip(1)[:, :count].t()
    scale = 255.0 / UNIT
    patch.weight[old:] = (rows.reshape(count, 3, side, side) * scale).float()
    patch.bias[old:] = (-0.5 * rows.sum(1) * scale).float()
    latent = seen @ rows.t() * scale
    use = torch.linalg.lstsq(latent, gone).solution / codec.decoder.small
    linear.weight[old:] = use.reshape(count, 3, side, side).float()
    for part in (codec.encoder, codec.decoder):
        part.spread[old:] = latent.abs().mean(0).clamp(min=1e-3)[:, None, None].float()


def _fit_rate(codec, crops):
    """Fits the rate model to the symbols of `crops`."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(codec.rate.parameters(), lr=0.03)
    with torch.no_grad():
        latents = torch.cat([codec.encoder(batch) for batch in crops.split(16)])
    for step in range(RATE_STEPS):
        some = torch.randint(len(latents), (RATE_BATCH,), generator=generator)
        quality = torch.randint(len(codec.names), (RATE_BATCH,), generator=generator)
        with torch.no_grad():
            hard = torch.round(latents[some] * codec.log_gain[quality].exp()[:, :, None, None])
        for group in optimizer.param_groups:
            group["lr"] = 0.03 * (1 - step / RATE_STEPS) + 0.001
        optimizer.zero_grad()
        codec.rate(hard, hard, quality, codec.unit(quality)).mean().backward()
        optimizer.step()
