"""The nets that can be trained. Each module has a Codec and a SymbolDecoder of the same form."""

from torch import nn

from . import light, paper


def make(config):
    """The codec that a Config asks for, not yet started."""
    return {"paper": paper, "light": light}[config.net].Codec(getattr(config, config.net))


def convolutions(module):
    """Every convolution in `module`."""
    return [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
