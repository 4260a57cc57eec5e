"""The light net: one 8x8 convolution and a small residual on the device, a deep residual decoder on the edge.

The encoder starts as the principal components of patches, the decoder as their inverse. One net
serves several qualities: each has a gain for every channel, and the decoder is told which it is.
Latents are in units of `UNIT` grey levels along orthonormal directions.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

UNIT = 32.0
# Channels, from the first on, whose values the context of a symbol sees at the corners above.
CORNERS = 16
# Of pixels in the decoder's output, so that its weights are of a size with those of other layers.
SMALL = 1.0 / 16.0


class Encoder(nn.Module):
    """pixels [N, 3, H, W] in 0..1, sides multiples of the stride -> latent [N, C, H/8, W/8]."""

    def __init__(self, config):
        """`config` is a LightConfig."""
        super().__init__()
        channels, inner = config.channels, config.inner
        self.patch = nn.Conv2d(3, channels, config.stride, config.stride)
        # Usual sizes of the first latent's channels: the residual sees all channels alike.
        self.register_buffer("spread", torch.ones(channels, 1, 1))
        self.has_residual = inner > 0
        if not self.has_residual:
            return
        self.into = nn.Conv2d(channels, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1)
        self.back = nn.Conv2d(inner, channels, 1)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)

    def forward(self, pixels):
        """See the class."""
        latent = self.patch(pixels)
        if not self.has_residual:
            return latent
        return latent + self.back(F.relu(self.mix(F.relu(self.into(latent / self.spread)))))


class Block(nn.Module):
    """Residual block of two 3x3 convolutions; the second starts at zero."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x):
        """[N, C, h, w] -> the same shape."""
        return x + self.second(F.relu(self.first(x)))


class Decoder(nn.Module):
    """Latent [N, C, h, w] and quality [N] -> pixels [N, 3, 8h, 8w], about 0..1."""

    def __init__(self, config, qualities):
        """`config` is a LightConfig."""
        super().__init__()
        width, fine = config.width, config.fine
        self.linear = nn.ConvTranspose2d(config.channels, 3, config.stride, config.stride)
        self.register_buffer("spread", torch.ones(config.channels, 1, 1))
        self.into = nn.Conv2d(config.channels, width, 3, padding=1)
        self.tell = nn.Embedding(qualities, 2 * width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(config.blocks)])
        self.up = nn.Conv2d(width, 4 * fine, 3, padding=1)
        self.fine = nn.Sequential(*[Block(fine) for _ in range(config.fine_blocks)])
        self.last = nn.Conv2d(fine, 3 * (config.stride // 2) ** 2, 3, padding=1)
        for module in (self.tell, self.last):
            nn.init.zeros_(module.weight)
        nn.init.zeros_(self.last.bias)
        self.half, self.small = config.stride // 2, SMALL

    def forward(self, latent, quality):
        """See the class."""
        told = self.tell(quality).unsqueeze(-1).unsqueeze(-1)
        scale, offset = torch.chunk(told, 2, 1)
        x = self.into(latent / self.spread) * (1.0 + scale) + offset
        x = self.blocks(x)
        x = self.fine(F.pixel_shuffle(self.up(x), 2))
        return (self.linear(latent) + F.pixel_shuffle(self.last(x), self.half)) * self.small


class Rate(nn.Module):
    """Bits of symbols under a distribution whose mean and scale come from a causal context.

    It stands for the entropy tables while the net is trained, and sees what they see: all channels
    of the places to the left and above, and the channels before at the same place. A weighted sum
    of symbols foresees the value, one of how far earlier values were off foresees the scale.
    """

    def __init__(self, channels, qualities):
        super().__init__()
        self.base = nn.Parameter(torch.full((qualities, channels), -0.5))
        self.slope = nn.Parameter(torch.full((channels,), 0.9))
        self.floor = nn.Parameter(torch.zeros(channels))
        # Of the distribution: shares of a logistic, a Laplace and a wide Laplace part.
        self.shape = nn.Parameter(torch.zeros(3))
        self.mean = nn.Parameter(torch.zeros(channels, channels, 2, 3))
        self.near = nn.Parameter(torch.full((channels, channels, 2, 3), -5.0))
        known = torch.ones(channels, channels, 2, 3)
        known[:, :, 1, 1].tril_(-1)
        known[:, :, 1, 2] = 0
        known[:, CORNERS:, 0, ::2] = 0
        self.register_buffer("known", known, persistent=False)
        own = known.clone()
        own[:, :, 0, ::2] = torch.eye(channels)[:, :, None]
        self.register_buffer("own", own, persistent=False)
        with torch.no_grad():
            for (row, column), weight in {(1, 0): -1.0, (0, 1): -1.0, (0, 0): -2.0, (0, 2): -2.0}.items():
                self.near[:, :, row, column].fill_diagonal_(weight)
            for back in range(1, 7):
                self.near[:, :, 1, 1].diagonal(-back).fill_(-1.5)

    def forward(self, noisy, hard, quality, unit):
        """Bits of each sample, [N]; `hard` are the integers that a decoder would know, `unit` [N, C, 1, 1] their usual sizes."""

        def around(values, weights):
            return F.conv2d(F.pad(values / unit, (1, 1, 1, 0)), weights) * unit

        of_values, of_errors = self.weights()
        mean = around(hard, of_values)
        off = (hard - mean.detach().round()).abs()
        seen = around(off, of_errors) + F.softplus(self.floor)[:, None, None]
        scale = (self.base[quality][:, :, None, None] + self.slope[:, None, None] * seen.log()).clamp(-6, 8).exp()
        # A floor as the tables have one: an escape costs some 20 bits.
        return -torch.log2(mass(noisy - mean, scale, self.shape.softmax(0)) + 1e-6).sum((1, 2, 3))

    def weights(self):
        """Kernels [C, C, 2, 3] of the two sums."""
        return 0.1 * self.mean * self.known, F.softplus(self.near) * self.own

    def alone(self, quality):
        """A copy for one quality."""
        out = Rate(len(self.floor), 1)
        state = {name: value.detach().clone() for name, value in self.state_dict().items()}
        state["base"] = state["base"][quality : quality + 1]
        out.load_state_dict(state)
        return out


def rounded(scaled):
    """int16 [C, h, w] of scaled latents [1, C, h, w], as the device rounds: halves away from zero."""
    return (scaled.abs() + 0.5).floor().mul(scaled.sign())[0].cpu().numpy().astype(np.int16)


def mass(away, scale, share):
    """Mass within 0.5 of `away` of a mixture, with these shares, of a logistic, a Laplace and a wide Laplace part."""
    return share[0] * _logistic(away, 0.7 * scale) + share[1] * laplace(away, scale) + share[2] * laplace(away, 2.2 * scale)


def _logistic(away, scale):
    """Mass of a logistic distribution within 0.5 of `away`."""
    return torch.sigmoid((away + 0.5) / scale) - torch.sigmoid((away - 0.5) / scale)


def laplace(away, scale):
    """Mass of a Laplace distribution within 0.5 of `away`."""
    away = away.abs()
    outside = 0.5 * torch.exp(-(away - 0.5).clamp(min=0) / scale) * (1 - torch.exp(-1 / scale))
    near = away.clamp(max=0.5)
    inside = 1 - 0.5 * (torch.exp((near - 0.5) / scale) + torch.exp(-(near + 0.5) / scale))
    return torch.where(away > 0.5, outside, inside)


class Codec(nn.Module):
    """Encoder, gains, rate model and decoder as they are trained together."""

    def __init__(self, config):
        """`config` is a LightConfig."""
        super().__init__()
        self.config, self.stride, self.channels = config, config.stride, config.channels
        self.names = [f"q{i + 1}" for i in range(len(config.steps))]
        # The distortion of a coarse quality counts less: its slope of rate against distortion is flatter.
        self.weights = [(config.middle_step / step) ** config.slope for step in config.steps]
        self.encoder = Encoder(config)
        # Latent rows of the neighbouring picture that the encoder needs above and below a strip.
        self.halo = 1 if self.encoder.has_residual else 0
        steps = torch.tensor([float(step) for step in config.steps])
        self.log_gain = nn.Parameter((UNIT / steps).log()[:, None].repeat(1, config.channels))
        self.rate = Rate(config.channels, len(config.steps))
        self.decoder = Decoder(config, len(config.steps))

    def code(self, pixels, quality):
        """(dequantised latent, bits of each sample) of pixels [N, 3, H, W] coded at quality [N]."""
        gain = self.log_gain[quality].exp()[:, :, None, None]
        scaled = self.encoder(pixels) * gain
        hard = torch.round(scaled).detach()
        # Rounding has no gradient: noise stands for it in the rate, the identity in the latent.
        noisy = scaled + torch.rand_like(scaled) - 0.5 if self.training else hard
        return (scaled + (hard - scaled).detach()) / gain, self.rate(noisy, hard, quality, self.unit(quality))

    def unit(self, quality):
        """Usual sizes of the symbols of samples at quality [N]: [N, C, 1, 1]."""
        return (self.encoder.spread * self.log_gain[quality].exp()[:, :, None, None]).detach()

    def decode(self, latent, quality):
        """Decoded pixels of a dequantised latent."""
        return self.decoder(latent, quality)

    def forward(self, pixels, quality):
        """(decoded pixels, bits of each sample), sides multiples of the stride."""
        latent, bits = self.code(pixels, quality)
        return self.decode(latent, quality), bits

    def coding(self):
        """What decides on the code: everything but the decoder."""
        return [p for name, p in self.named_parameters() if not name.startswith("decoder.")]

    def groups(self):
        """[(parameters, factor of the learning rate)]: scales and gains are logarithms, and have far to go."""
        fast, gain = list(self.rate.parameters()), [self.log_gain]
        known = {id(p) for p in fast + gain}
        return [([p for p in self.parameters() if id(p) not in known], 1.0), (fast, 20.0), (gain, 4.0)]

    def symbols(self, pixels, quality):
        """int16 symbols [C, h, w] of float32 [1, 3, H, W] at the quality of this index."""
        with torch.no_grad():
            return rounded(self.encoder(pixels) * self.log_gain[quality].exp()[None, :, None, None])

    def start(self, crops, seed, tries):
        """Sets starting values from `crops`, float32 [N, 3, H, W] in 0..1; nothing here is random."""
        side, channels = self.stride, self.channels
        n, _, height, width = crops.shape
        patches = crops.reshape(n, 3, height // side, side, width // side, side)
        patches = patches.transpose(0, 2, 4, 1, 3, 5).reshape(-1, 3 * side * side).astype(np.float64) - 0.5
        _, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
        rows = np.ascontiguousarray(vectors[:, ::-1][:, :channels].T)
        rows *= np.where(rows.sum(1) < 0, -1.0, 1.0)[:, None]
        shape, scale = (channels, 3, side, side), 255.0 / UNIT
        with torch.no_grad():
            self.encoder.patch.weight.copy_(torch.from_numpy(rows.reshape(shape) * scale))
            self.encoder.patch.bias.copy_(torch.from_numpy(-0.5 * rows.sum(1) * scale))
            self.decoder.linear.weight.copy_(torch.from_numpy(rows.reshape(shape) / (scale * SMALL)))
            self.decoder.linear.bias.fill_(0.5 / SMALL)
            spread = torch.from_numpy(np.abs(patches @ rows.T).mean(0) * scale).float()
            for part in (self.encoder, self.decoder):
                part.spread.copy_(spread.clamp(min=1e-3)[:, None, None])
            for row, column in ((1, 0), (0, 1)):
                self.rate.mean[:3, :3, row, column].fill_diagonal_(5.0)

    def offsets(self):
        """Symbols lie around 0 as they are."""
        return (0,)

    def plain(self):
        """A frozen copy on the CPU in eval mode."""
        out = copy.deepcopy(self).cpu().eval()
        for parameter in out.parameters():
            parameter.requires_grad_(False)
        return out

    def symbol_decoder(self, offset):
        """The decoder that the bundle ships; of a plain codec."""
        return SymbolDecoder(self).eval()

    def manifest(self, offset):
        """What the manifest says of quantiser and gains; of a plain codec."""
        return {"kind": "round"}, [[float(g) for g in row] for row in self.log_gain.exp()]


class SymbolDecoder(nn.Module):
    """What the bundle ships: symbols [N, C, h, w] (integers as float) and quality [N] (int64) -> pixels in 0..1."""

    def __init__(self, codec):
        """`codec` is a plain Codec."""
        super().__init__()
        self.register_buffer("step", (-codec.log_gain).exp().detach().clone())
        self.decoder = codec.decoder

    def forward(self, symbols, quality):
        """See the class."""
        latent = symbols * self.step[quality].unsqueeze(-1).unsqueeze(-1)
        return torch.clamp(self.decoder(latent, quality), 0.0, 1.0)
