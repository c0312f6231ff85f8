"""Feature scaling for the baseline heads: centred, with about unit deviation per channel."""

import torch
from torch import Tensor, nn


class FeatureScale(nn.Module):
    """x -> (x - training mean) / training deviation.

    The scale of features differs between towers by orders of magnitude, and much of a feature is common to all
    images; without this, one learning rate cannot serve a head on every tower. A single deviation for all
    channels sets the scale without changing directions.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(()))

    def start_from(self, features: Tensor) -> None:
        """features (..., d) of training images."""
        features = features.float().flatten(0, -2)
        self.mean = features.mean(dim=0)
        self.deviation = (features - self.mean).std()

    def forward(self, features: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return (features - self.mean) / self.deviation
