"""The unit in which baseline heads read features: centred, and of about one deviation a channel."""

import torch
from torch import Tensor, nn


class FeatureScale(nn.Module):
    """x -> (x - mean of training) / deviation of training.

    Towers differ in scale by orders of magnitude and share a large common part among all images; without
    this, one learning rate cannot serve a head on all of them. One deviation for all channels: it sets the
    learning rate's unit and changes no direction.
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
