"""The codec of a feature: strided and 1x1 convolutions on the device, a small residual decoder on the edge.

It starts as the principal components of the feature's patches and their inverse, where the size of a
component is what it changes in the tail's answer. Each of their maps may then be transformed once more,
by a cosine transform of `side` times `side` places of which the lowest `waves` are kept. As in
`nets.light`, one net serves several qualities, each with a gain for every channel of the latent.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..nets.light import Block, laplace

# Channels before this one in whose magnitudes the rate model looks, as the entropy tables do.
PREVIOUS = 6


def cosines(side, waves):
    """float64 [waves, side, side]: orthonormal cosine waves over a square, the slowest first."""
    at, rows = np.arange(side), np.arange(side)[:, None]
    one = np.cos(np.pi * (at + 0.5) * rows / side) * np.sqrt(np.where(rows, 2.0, 1.0) / side)
    order = sorted(((u, v) for u in range(side) for v in range(side)), key=lambda w: (w[0] ** 2 + w[1] ** 2, w))
    return np.stack([np.outer(one[u], one[v]) for u, v in order[:waves]])


class Encoder(nn.Module):
    """feature [N, F, H, W] -> latent [N, C, H/s, W/s]; with waves [N, C * waves, H/s/side, W/s/side]."""

    def __init__(self, feature, channels, stride, inner, side, waves):
        super().__init__()
        self.patch = nn.Conv2d(feature, channels, stride, stride)
        self.into = nn.Conv2d(channels, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1)
        self.back = nn.Conv2d(inner, channels, 1)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)
        self.gather = nn.Identity()
        if side > 1:
            self.gather = nn.Conv2d(channels, channels * waves, side, side, groups=channels)

    def forward(self, feature):
        """See the class."""
        latent = self.patch(feature)
        return self.gather(latent + self.back(F.relu(self.mix(F.relu(self.into(latent))))))


class Decoder(nn.Module):
    """symbols [N, C, h, w] (integers as float) and quality [N] (int64) -> feature [N, F, s h, s w]."""

    def __init__(self, feature, channels, stride, width, blocks, qualities, side, waves):
        super().__init__()
        self.stride = stride
        self.spread = nn.Identity()
        if side > 1:
            self.spread = nn.ConvTranspose2d(channels * waves, channels, side, side, groups=channels)
        self.linear = nn.ConvTranspose2d(channels, feature, stride, stride)
        self.into = nn.Conv2d(channels, width, 3, padding=1)
        self.tell = nn.Embedding(qualities, 2 * width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(blocks)])
        self.last = nn.Conv2d(width, feature * stride * stride, 1)
        # Of symbols; the inverse of the gains.
        self.register_buffer("step", torch.ones(qualities, channels * waves))
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
        maps = self.spread(latent)
        x = self.blocks(self.into(maps) * (1.0 + scale) + offset)
        return (self.linear(maps) + F.pixel_shuffle(self.last(x), self.stride)) * self.scale


class Codec(nn.Module):
    """Encoder, gains and decoder; what `codec.npz` holds."""

    def __init__(self, feature, stride, channels, inner=32, width=64, blocks=4, qualities=3, side=1, waves=1):
        """`feature` is the shape (F, H, W) of what is coded."""
        super().__init__()
        self.sizes = {
            "feature": list(feature), "stride": stride, "channels": channels,
            "inner": inner, "width": width, "blocks": blocks, "qualities": qualities,
        }
        if side > 1:
            self.sizes.update(side=side, waves=waves)
        self.feature, self.qualities, self.side, self.waves = feature, qualities, side, waves
        self.maps, self.patch = channels, stride
        # Of the latent.
        self.channels, self.stride = channels * waves, stride * side
        self.encoder = Encoder(feature[0], channels, stride, inner, side, waves)
        self.log_gain = nn.Parameter(torch.zeros(qualities, self.channels))
        self.decoder = Decoder(feature[0], channels, stride, width, blocks, qualities, side, waves)

    @property
    def latent(self):
        """Rows and columns of the latent."""
        return -(-self.feature[1] // self.stride), -(-self.feature[2] // self.stride)

    def start(self, features, slopes, targets):
        """Sets starting values; quality i is to take about targets[i] bytes.

        `slopes` are, for some of `features` [N, F, H, W], gradients whose squares tell what an error costs.
        """
        size, count = self.patch, self.maps
        patches = _patches(features, size)
        mean = patches.mean(0)
        covariance = np.cov(patches, rowvar=False)
        # Of an error's cost; errors that seem to cost nothing count a little.
        cost = _patches(slopes, size)
        cost = cost.T @ cost / len(cost)
        cost += 0.02 * np.trace(cost) / len(cost) * np.eye(len(cost))
        values, vectors = np.linalg.eigh(cost)
        root = (vectors * np.sqrt(values)) @ vectors.T
        sizes, vectors = np.linalg.eigh(root @ covariance @ root)
        sizes = sizes[::-1][:count]
        rows = vectors[:, ::-1][:, :count].T @ root / np.sqrt(sizes.mean())
        # The best guess of a patch from its components, which are uncorrelated.
        back = covariance @ rows.T / (sizes / sizes.mean())
        scale = float(patches.std(0).mean())
        shape = (count, features.shape[1], size, size)
        with torch.no_grad():
            self.encoder.patch.weight.copy_(torch.from_numpy(rows.reshape(shape)))
            self.encoder.patch.bias.copy_(torch.from_numpy(-rows @ mean))
            self.decoder.linear.weight.copy_(torch.from_numpy(back.T.reshape(shape) / scale))
            self.decoder.linear.bias.copy_(torch.from_numpy(mean.reshape(features.shape[1], -1).mean(1) / scale))
            self.decoder.scale.fill_(scale)
            if self.side > 1:
                waves = torch.from_numpy(cosines(self.side, self.waves)).float().repeat(count, 1, 1)[:, None]
                for module in (self.encoder.gather, self.decoder.spread):
                    module.weight.copy_(waves)
                    module.bias.zero_()
            latents = torch.cat([self.encoder(part) for part in features.split(32)])
            latents = latents.permute(0, 2, 3, 1).reshape(-1, self.channels).double().numpy()
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


def _patches(maps, side):
    """float64 [places, F * side * side] of maps [N, F, H, W]."""
    n, f, height, width = maps.shape
    patches = maps.reshape(n, f, height // side, side, width // side, side)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(-1, f * side * side).double().numpy()


def _step(latents, bits):
    """The one quantisation step at which the symbols of a place have an entropy of `bits` in all."""
    low, high = 1e-3, 1e3
    for _ in range(24):
        step, total = (low * high) ** 0.5, 0.0
        for column in np.round(latents[:: max(1, len(latents) // 4000)] / step).T:
            _, counts = np.unique(column, return_counts=True)
            share = counts / counts.sum()
            total -= float((share * np.log2(share)).sum())
        low, high = (step, high) if total > bits else (low, step)
    return step


class Rate(nn.Module):
    """Bits of symbols under a Laplace distribution whose scale and mean come from a causal context.

    It stands for the entropy tables while the net is trained: left, up, upper-left and upper-right
    in the same channel, and the magnitudes at the same place in the channels before.
    """

    def __init__(self, channels, qualities):
        super().__init__()
        self.base = nn.Parameter(torch.zeros(qualities, channels))
        self.slope = nn.Parameter(torch.full((channels,), 0.8))
        self.near = nn.Parameter(torch.tensor([0.5, 0.5, -0.7, -0.7]).repeat(channels, 1))
        self.before = nn.Parameter(torch.full((channels, PREVIOUS), -0.7))
        # Of the first channels, which carry the local mean, the value itself can be foreseen.
        self.mean = nn.Parameter(torch.zeros(channels, 3))

    def forward(self, noisy, hard, quality):
        """Bits of each sample, [N]; `hard` are the integers that a decoder would know."""
        count = hard.shape[1]
        size = hard.abs()
        padded, signed = F.pad(size, (1, 1, 1, 0)), F.pad(hard, (1, 0, 1, 0))
        near = F.softplus(self.near).t().reshape(4, 1, count, 1, 1)
        seen = (
            near[0] * padded[:, :, 1:, :-2]
            + near[1] * padded[:, :, :-1, 1:-1]
            + near[2] * padded[:, :, :-1, :-2]
            + near[3] * padded[:, :, :-1, 2:]
        )
        before = F.softplus(self.before).t().reshape(PREVIOUS, 1, count, 1, 1)
        for back in range(1, PREVIOUS + 1):
            seen = seen + before[back - 1] * F.pad(size, (0, 0, 0, 0, back, 0))[:, :count]
        slope = self.slope.reshape(1, -1, 1, 1)
        scale = (self.base[quality][:, :, None, None] + slope * torch.log1p(seen) - 1.5).clamp(-6, 8).exp()
        weight = self.mean.t().reshape(3, 1, count, 1, 1)
        mean = (
            weight[0] * signed[:, :, 1:, :-1] + weight[1] * signed[:, :, :-1, 1:] + weight[2] * signed[:, :, :-1, :-1]
        )
        # A floor as the tables have one: an escape costs some 20 bits.
        return -torch.log2(laplace(noisy - mean, scale) + 1e-6).sum((1, 2, 3))


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

    def groups(self, lr, decay):
        """Parameter groups: the rate model and the gains are logarithms, and have far to go; nor are they to decay."""
        fast, gain = list(self.rate.parameters()), [self.codec.log_gain]
        slow = [*self.codec.encoder.parameters(), *self.codec.decoder.parameters()]
        kinds = ((slow, 1, decay), (fast, 20, 0.0), (gain, 4, 0.0))
        return [{"params": p, "lr": lr * factor, "factor": factor, "weight_decay": d} for p, factor, d in kinds]
