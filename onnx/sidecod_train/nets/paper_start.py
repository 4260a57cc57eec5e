"""Starting values of the paper's net: principal components of patches for the encoder, their inverse for the decoder."""

import numpy as np
import torch
from torch import nn


# How much of the mean level the encoder carries. It is spread over all channels and smooth, so the
# decoder can do with less of it, and the shared centres then lie closer to each other.
LEVEL = 0.5


def _rows(patches, channels):
    """The leading principal directions [channels, n] of uncentred `patches` [count, n].

    Uncentred, because the encoder has no bias and must carry the mean level too.
    """
    _, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    return vectors[:, ::-1][:, :channels].T


def _distortion(latents, count):
    """Mean squared error of `count` uniform levels shared by all channels over the range of `latents`."""
    low, high = np.quantile(latents, [0.002, 0.998])
    step = (high - low) / count
    levels = np.clip(np.floor((latents - low) / step), 0, count - 1)
    return float(np.mean((latents - (low + (levels + 0.5) * step)) ** 2))


def _encoder(codec, patches, rng, tries):
    """Principal components, rotated so that one set of levels fits all channels: float64 [C, n]."""
    convolution = codec.encoder
    channels = convolution.weight.shape[0]
    count = codec.quantizer.centers.numel()
    rows = _rows(patches, channels)
    rows[0] *= LEVEL
    latents = patches @ rows.T
    best = None
    for _ in range(tries):
        rotation, _ = np.linalg.qr(rng.normal(size=(channels, channels)))
        turned = latents @ rotation.T
        rotation = rotation * np.where(turned.mean(0) < 0, -1.0, 1.0)[:, None]
        error = _distortion(latents @ rotation.T, count)
        if best is None or error < best[0]:
            best = (error, rotation)
    return best[1] @ rows


def _set(convolution, weight):
    """Sets the weight under the spectral norm and lets the norm settle; returns the norm."""
    weight = torch.as_tensor(weight, dtype=torch.float32)
    with torch.no_grad():
        convolution.parametrizations.weight.original.copy_(weight)
        convolution.train()
        for _ in range(50):
            convolution.weight
        largest = weight.abs().argmax()
        return float(weight.reshape(-1)[largest] / convolution.weight.reshape(-1)[largest])


def _decoder(codec, linear, rng):
    """Makes the shortcut path of the decoder the linear map `linear` [C, 3, 4, 4] from latent to patch.

    The first shortcut spreads a patch over 12 channels (colour, place within 2x2), the second over
    colours and their negatives, of which the last ReLU and convolution make colours again. Residual
    branches start at zero; all other weights stay small and random. What the spectral norms take
    away, the last batch norm gives back.
    """
    decoder = codec.decoder
    first, second, last = decoder.block1.skip, decoder.block2.skip, decoder.last
    weight1 = rng.normal(size=first.weight.shape) * 0.02
    weight2 = rng.normal(size=second.weight.shape) * 0.1
    weight3 = rng.normal(size=last.weight.shape) * 0.01
    weight1[:, :12], weight2[:12], weight2[:, :6], weight3[:, :6] = 0, 0, 0, 0
    for colour in range(3):
        weight3[colour, colour, 1, 1], weight3[colour, 3 + colour, 1, 1] = 1, -1
        for row in range(2):
            for column in range(2):
                middle = 4 * colour + 2 * row + column
                weight1[:, middle] = linear[:, colour, row::2, column::2]
                weight2[middle, colour, row, column] = 1
                weight2[middle, 3 + colour, row, column] = -1
    scale = 1 / (_set(first, weight1) * _set(second, weight2))
    shrunk = _set(last, weight3)
    with torch.no_grad():
        for module in (first, second, last):
            if module.bias is not None:
                module.bias.zero_()
        for block in (decoder.block1, decoder.block2):
            block.norm2.weight.zero_()
    return scale, shrunk


def _settle(codec, crops):
    """Sets every batch norm's statistics to those of `crops`."""
    norms = [m for m in codec.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    codec.train()
    with torch.no_grad():
        for batch in crops.split(16):
            codec(batch, None)
    for norm in norms:
        norm.momentum = 0.1


def start(codec, crops, seed, tries):
    """Sets starting values of `codec` from `crops`, float32 [N, 3, H, W] in 0..1.

    `tries` rotations of the encoder's channels are tried. The decoded picture is then that of the best linear map from the quantised latent to patches.
    """
    channels, _, side, _ = codec.encoder.weight.shape
    n, _, height, width = crops.shape
    patches = crops.reshape(n, 3, height // side, side, width // side, side)
    patches = patches.transpose(0, 2, 4, 1, 3, 5).reshape(-1, 3 * side * side).astype(np.float64)
    rng = np.random.default_rng(seed)
    patches = patches[rng.permutation(len(patches))[:40000]]
    _set(codec.encoder, _encoder(codec, patches, rng, tries).reshape(channels, 3, side, side))
    crops = torch.from_numpy(crops[:64])
    with torch.no_grad():
        codec.quantizer.place(codec.encoder(crops))
        weight = codec.encoder.weight.reshape(channels, -1).double().numpy()
        latents = codec.quantizer(torch.from_numpy(patches @ weight.T).float()).double().numpy()
        linear = np.linalg.lstsq(latents, patches, rcond=None)[0].reshape(channels, 3, side, side)
        scale, shrunk = _decoder(codec, linear, rng)
        _settle(codec, crops)
        # tanh is steepest in the middle and never reaches its ends: a little more than the straight line.
        norm, gain = codec.decoder.norm, 2 * 1.2 * shrunk / scale
        signs = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
        norm.weight[:6] = gain * (norm.running_var[:6] + norm.eps).sqrt()
        norm.bias[:6] = gain * (norm.running_mean[:6] - signs * 0.5 * scale)
