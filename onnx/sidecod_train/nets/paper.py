"""The paper's own net (DeepCOD, SenSys 2020): one strided convolution, and a decoder with self-attention.

Every convolution is spectrally normalised while it is trained; `plain` folds the norm into the weights.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from . import paper_start
from .quantize import Quantizer


class SelfAttention(nn.Module):
    """Every place looks at all places; keys and values are max-pooled by `pool`."""

    def __init__(self, channels, pool):
        super().__init__()
        inner, middle = max(4, channels // 8), max(4, channels // 2)
        self.query = spectral_norm(nn.Conv2d(channels, inner, 1, bias=False))
        self.key = spectral_norm(nn.Conv2d(channels, inner, 1, bias=False))
        self.value = spectral_norm(nn.Conv2d(channels, middle, 1, bias=False))
        self.out = spectral_norm(nn.Conv2d(middle, channels, 1, bias=False))
        # ceil_mode: a picture smaller than the pool still has one key.
        self.pool = nn.MaxPool2d(pool, ceil_mode=True)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        """[N, C, h, w] -> the same shape."""
        shape = x.shape
        query = self.query(x).flatten(2).transpose(1, 2)
        key = self.pool(self.key(x)).flatten(2)
        value = self.pool(self.value(x)).flatten(2).transpose(1, 2)
        weight = torch.softmax(torch.matmul(query, key), -1)
        seen = torch.matmul(weight, value).transpose(1, 2)
        seen = seen.reshape(shape[0], self.out.in_channels, shape[2], shape[3])
        return x + self.gain * self.out(seen)


class UpBlock(nn.Module):
    """Residual block that doubles height and width."""

    def __init__(self, channels, out):
        super().__init__()
        self.up = spectral_norm(nn.ConvTranspose2d(channels, out, 4, 2, 1, bias=False))
        self.norm1 = nn.BatchNorm2d(out)
        self.conv = spectral_norm(nn.Conv2d(out, out, 3, padding=1, bias=False))
        self.norm2 = nn.BatchNorm2d(out)
        self.skip = spectral_norm(nn.ConvTranspose2d(channels, out, 2, 2))

    def forward(self, x):
        """[N, channels, h, w] -> [N, out, 2h, 2w]."""
        main = self.norm2(self.conv(F.relu(self.norm1(self.up(x)))))
        return main + self.skip(x)


class Decoder(nn.Module):
    """Dequantised latent [N, C, h, w] -> pixels [N, 3, 4h, 4w] in 0..1."""

    def __init__(self, config):
        """`config` is a PaperConfig."""
        super().__init__()
        self.attention1 = SelfAttention(config.channels, config.pool1)
        self.block1 = UpBlock(config.channels, config.up1)
        self.attention2 = SelfAttention(config.up1, config.pool2)
        self.block2 = UpBlock(config.up1, config.up2)
        self.norm = nn.BatchNorm2d(config.up2)
        self.last = spectral_norm(nn.Conv2d(config.up2, 3, 3, padding=1))

    def forward(self, latent):
        """See the class."""
        x = self.attention2(self.block1(self.attention1(latent)))
        x = F.relu(self.norm(self.block2(x)))
        return (torch.tanh(self.last(x)) + 1.0) * 0.5


class Codec(nn.Module):
    """Encoder, quantiser and decoder as they are trained together."""

    def __init__(self, config):
        """`config` is a PaperConfig."""
        super().__init__()
        self.config, self.stride, self.channels = config, config.stride, config.channels
        self.names, self.weights = ["only"], [1.0]
        # Latent rows of the neighbouring picture that the encoder needs above and below a strip.
        self.halo = 0
        self.encoder = spectral_norm(nn.Conv2d(3, config.channels, config.stride, config.stride, bias=False))
        self.quantizer = Quantizer(config.centers, config.hardness)
        self.decoder = Decoder(config)

    def code(self, pixels, quality):
        """(dequantised latent, bits of each sample) of pixels [N, 3, H, W] in 0..1; the bits are not estimated."""
        return self.quantizer(self.encoder(pixels)), pixels.new_zeros(len(pixels))

    def decode(self, latent, quality):
        """Decoded pixels of a dequantised latent."""
        return self.decoder(latent)

    def forward(self, pixels, quality):
        """(decoded pixels, bits of each sample), sides multiples of the stride."""
        latent, bits = self.code(pixels, quality)
        return self.decode(latent, quality), bits

    def coding(self):
        """The parameters that decide on the code."""
        return [*self.encoder.parameters(), *self.quantizer.parameters()]

    def groups(self):
        """[(parameters, factor of the learning rate)]."""
        return [(list(self.parameters()), 1.0)]

    def symbols(self, pixels, quality):
        """int16 symbols [C, h, w] of float32 [1, 3, H, W]: indices of centres, from 0."""
        with torch.no_grad():
            return self.quantizer.indices(self.encoder(pixels))[0].cpu().numpy().astype(np.int16)

    def start(self, crops, seed, tries):
        """Sets starting values from `crops`, float32 [N, 3, H, W] in 0..1."""
        paper_start.start(self, crops, seed, tries)

    def offsets(self):
        """What may be taken off an index to make a symbol.

        With symbols from 0 the context knows which side of the middle an earlier channel was on;
        with symbols around 0 it knows how far from the middle it was.
        """
        return (0, self.config.centers // 2)

    def plain(self):
        """A copy on the CPU in eval mode whose spectral norms are folded into ordinary weights."""
        # Not a deep copy: that would share the classes in which torch keeps the norms, and lose them for both.
        out = Codec(self.config)
        out.load_state_dict(self.state_dict())
        out.eval()
        for module in list(out.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        for parameter in out.parameters():
            parameter.requires_grad_(False)
        return out

    def symbol_decoder(self, offset):
        """The decoder that the bundle ships; of a plain codec."""
        return SymbolDecoder(self, offset).eval()

    def manifest(self, offset):
        """What the manifest says of quantiser and gains; of a plain codec."""
        centers = [float(c) for c in self.quantizer.centers.sort().values]
        return (
            {"kind": "centers", "centers": centers, "offset": offset},
            [[1.0] * self.channels],
        )


class SymbolDecoder(nn.Module):
    """What the bundle ships: symbols [N, C, h, w] (integers as float) -> pixels [N, 3, 4h, 4w] in 0..1."""

    def __init__(self, codec, offset):
        """`codec` has plain weights; symbol = index of the centre in ascending order - offset."""
        super().__init__()
        self.register_buffer("centers", codec.quantizer.centers.detach().sort().values.clone())
        self.decoder = codec.decoder
        self.offset = float(offset)
        self.top = float(self.centers.numel() - 1)

    def forward(self, symbols):
        """See the class. A symbol outside the centres counts as the nearest one."""
        index = torch.clamp(torch.round(symbols) + self.offset, 0.0, self.top).to(torch.int64)
        return self.decoder(self.centers[index])
