"""The codec of a feature: strided and 1x1 convolutions on the device, a small residual decoder on the edge.

It starts as the principal components of the feature's patches and their inverse. As in `nets.light`,
one net serves several qualities, each with a gain for every channel of the latent.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..nets.light import Block, Rate


class Encoder(nn.Module):
    """feature [N, F, H, W] -> latent [N, C, H/s, W/s]."""

    def __init__(self, feature, channels, stride, inner):
        super().__init__()
        self.patch = nn.Conv2d(feature, channels, stride, stride)
        self.into = nn.Conv2d(channels, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1)
        self.back = nn.Conv2d(inner, channels, 1)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)

    def forward(self, feature):
        """See the class."""
        latent = self.patch(feature)
        return latent + self.back(F.relu(self.mix(F.relu(self.into(latent)))))


class Decoder(nn.Module):
    """symbols [N, C, h, w] (integers as float) and quality [N] (int64) -> feature [N, F, s h, s w]."""

    def __init__(self, feature, channels, stride, width, blocks, qualities):
        super().__init__()
        self.stride = stride
        self.linear = nn.ConvTranspose2d(channels, feature, stride, stride)
        self.into = nn.Conv2d(channels, width, 3, padding=1)
        self.tell = nn.Embedding(qualities, 2 * width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(blocks)])
        self.last = nn.Conv2d(width, feature * stride * stride, 1)
        # Of symbols; the inverse of the gains.
        self.register_buffer("step", torch.ones(qualities, channels))
        # The feature's size: what is learned above it is of a size with other layers' weights.
        self.register_buffer("scale", torch.ones(1))
        for module in (self.tell, self.last):
            nn.init.zeros_(module.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, symbols, quality):
        """See the class."""
        return self.rebuild(symbols * self.step[quality].unsqueeze(-1).unsqueeze(-1), quality)

    def rebuild(self, latent, quality):
        """The feature of a latent."""
        scale, offset = torch.chunk(self.tell(quality).unsqueeze(-1).unsqueeze(-1), 2, 1)
        x = self.blocks(self.into(latent) * (1.0 + scale) + offset)
        return (self.linear(latent) + F.pixel_shuffle(self.last(x), self.stride)) * self.scale


class Codec(nn.Module):
    """Encoder, gains and decoder; what `codec.npz` holds."""

    def __init__(self, feature, stride, channels, inner=32, width=64, blocks=4, qualities=3):
        """`feature` is the shape (F, H, W) of what is coded."""
        super().__init__()
        self.sizes = {
            "feature": list(feature), "stride": stride, "channels": channels,
            "inner": inner, "width": width, "blocks": blocks, "qualities": qualities,
        }
        self.feature, self.stride, self.channels, self.qualities = feature, stride, channels, qualities
        self.encoder = Encoder(feature[0], channels, stride, inner)
        self.log_gain = nn.Parameter(torch.zeros(qualities, channels))
        self.decoder = Decoder(feature[0], channels, stride, width, blocks, qualities)

    @property
    def latent(self):
        """Rows and columns of the latent."""
        return -(-self.feature[1] // self.stride), -(-self.feature[2] // self.stride)

    def start(self, features, targets):
        """Sets starting values from `features` [N, F, H, W]; quality i is to take about targets[i] bytes."""
        side, count = self.stride, self.channels
        n, f, height, width = features.shape
        patches = features.reshape(n, f, height // side, side, width // side, side)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(-1, f * side * side).double().numpy()
        mean = patches.mean(0)
        _, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
        rows = np.ascontiguousarray(vectors[:, ::-1][:, :count].T)
        scale = float(patches.std(0).mean())
        latents = (patches - mean) @ rows.T / scale
        shape = (count, f, side, side)
        # Rows and their transpose stand for the convolution and its inverse.
        with torch.no_grad():
            self.encoder.patch.weight.copy_(torch.from_numpy((rows / scale).reshape(shape)))
            self.encoder.patch.bias.copy_(torch.from_numpy(-(rows / scale) @ mean))
            self.decoder.linear.weight.copy_(torch.from_numpy(rows.reshape(shape)))
            self.decoder.linear.bias.copy_(torch.from_numpy(mean.reshape(f, -1).mean(1) / scale))
            self.decoder.scale.fill_(scale)
            places = self.latent[0] * self.latent[1]
            for quality, target in enumerate(targets):
                step = _step(latents, 8 * target / places)
                self.log_gain[quality].fill_(-float(np.log(step)))
        return torch.from_numpy(np.abs(latents).mean(0)).float()

    def symbols(self, features, quality):
        """int16 [N, C, h, w], rounded as the device rounds: halves away from zero."""
        with torch.no_grad():
            scaled = self.encoder(features) * self.log_gain[quality].exp()[None, :, None, None]
            return (scaled.abs() + 0.5).floor().mul(scaled.sign()).cpu().numpy().astype(np.int16)

    def settle(self):
        """Gives the decoder the steps that belong to the gains; for a codec that is not trained any more."""
        with torch.no_grad():
            self.decoder.step.copy_((-self.log_gain).exp())
        return self.eval().requires_grad_(False)


def _step(latents, bits):
    """The one quantisation step at which the symbols of a place have an entropy of `bits` in all."""
    low, high = 1e-3, 1e3
    for _ in range(24):
        step, total = (low * high) ** 0.5, 0.0
        for column in np.round(latents[::7] / step).T:
            _, counts = np.unique(column, return_counts=True)
            share = counts / counts.sum()
            total -= float((share * np.log2(share)).sum())
        low, high = (step, high) if total > bits else (low, step)
    return step


class Training(nn.Module):
    """A codec with the rate model that stands for its entropy tables."""

    def __init__(self, codec, spread):
        """`spread` [C] are the usual sizes of the latent's channels."""
        super().__init__()
        self.codec, self.rate = codec, Rate(codec.channels, codec.qualities)
        with torch.no_grad():
            expected = spread[None] * codec.log_gain.exp()
            base = 1.5 + (expected / (1 + expected).pow(0.8)).clamp(min=0.02).log()
            self.rate.base.copy_(base.clamp(-3, 3))

    def forward(self, feature, quality):
        """(decoded feature, bits of each sample with noise for rounding, bits as rounded)."""
        codec = self.codec
        gain = codec.log_gain[quality].exp()[:, :, None, None]
        scaled = codec.encoder(feature) * gain
        hard = torch.round(scaled).detach()
        # Rounding has no gradient: noise stands for it in the rate, the identity in the symbols.
        noisy = scaled + torch.rand_like(scaled) - 0.5
        latent = (scaled + (hard - scaled).detach()) / gain
        with torch.no_grad():
            # Noise around symbols that are mostly zero costs bits that no code needs.
            rounded = self.rate(hard, hard, quality)
        return codec.decoder.rebuild(latent, quality), self.rate(noisy, hard, quality), rounded

    def groups(self, lr):
        """Parameter groups: the rate model and the gains are logarithms, and have far to go."""
        fast, gain = list(self.rate.parameters()), [self.codec.log_gain]
        slow = [*self.codec.encoder.parameters(), *self.codec.decoder.parameters()]
        return [{"params": p, "lr": lr * factor, "factor": factor} for p, factor in ((slow, 1), (fast, 20), (gain, 4))]
