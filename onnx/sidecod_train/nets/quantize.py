"""Scalar centres shared by all channels: hard in the forward pass, soft in the backward pass."""

import torch
from torch import nn


class Quantizer(nn.Module):
    """Soft-to-hard quantisation (DeepCOD, SenSys 2020): softmax of minus squared distance, straight-through."""

    def __init__(self, count, hardness):
        """`count` centres, spread over 0..1 until `place` is called."""
        super().__init__()
        self.centers = nn.Parameter(torch.linspace(0.0, 1.0, count))
        self.hardness = hardness

    def place(self, latent):
        """Puts the centres on the 1-D k-means of `latent` (any shape), started from its quantiles."""
        values = latent.detach().reshape(-1).double()
        count = self.centers.numel()
        levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        centers = torch.quantile(values[:: max(1, values.numel() // 1000000)], levels)
        for _ in range(50):
            nearest = (values[:, None] - centers[None]).abs().argmin(1)
            total = torch.bincount(nearest, values, minlength=count)
            number = torch.bincount(nearest, minlength=count)
            centers = torch.where(number > 0, total / number.clamp(min=1), centers)
        with torch.no_grad():
            self.centers.copy_(centers.sort().values)

    def indices(self, latent):
        """Index of the nearest centre in ascending order, int64, same shape as `latent`."""
        centers = self.centers.sort().values
        return torch.bucketize(latent.contiguous(), (centers[1:] + centers[:-1]) / 2)

    def forward(self, latent):
        """The value of the nearest centre; gradients as if the assignment were soft."""
        centers = self.centers.sort().values
        spacing = (centers[-1] - centers[0]).detach() / (centers.numel() - 1)
        distance = ((latent.unsqueeze(-1) - centers) / spacing.clamp(min=1e-6)).square()
        soft = (torch.softmax(-self.hardness * distance, -1) * centers).sum(-1)
        hard = centers[self.indices(latent)]
        return soft + (hard - soft).detach()
