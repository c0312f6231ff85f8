"""The soft aggregator: from similarities of regions and labels to one score per label.

Legend: B images, M regions, C labels, d width of the joint space.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sspa.stage2_training.model.options import AggregatorOptions


def region_similarities(regions: Tensor, text: Tensor) -> Tensor:
    """Cosine of every region with every label: (B, M, d), (B, C, d) or (C, d) -> S (B, M, C)."""
    return F.normalize(regions, dim=-1) @ F.normalize(text, dim=-1).mT


def soft_weights(similarities: Tensor, temperature: Tensor | float) -> Tensor:
    """w = softmax over the regions of S / tau: (B, M, C) -> (B, M, C), each column of which sums to 1."""
    return (similarities / temperature).softmax(dim=1)


class SoftAggregator(nn.Module):
    """score = sum over M of w * S, with a learnable temperature.

    Source: the paper names a soft aggregator and a "sharp" prediction; this form is a reconstruction.
    `kind` "soft" is the method; "max", "mean" and "top" (mean of the `top` highest) are ablations.

    Shapes: S (B, M, C) -> scores (B, C) and the regions' weights (B, M, C).
    """

    def __init__(self, options: AggregatorOptions) -> None:
        super().__init__()
        self.kind, self.top = options.kind, options.top
        soft = options.kind == "soft"
        self.log_temperature = nn.Parameter(torch.tensor(math.log(options.temperature))) if soft else None

    def forward(self, similarities: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._weights(similarities)
        return (weights * similarities).sum(dim=1), weights

    def _weights(self, similarities: Tensor) -> Tensor:
        if self.log_temperature is not None:
            return soft_weights(similarities, self.log_temperature.exp())
        regions = similarities.shape[1]
        kept = {"max": 1, "mean": regions, "top": min(self.top, regions)}[self.kind]
        index = similarities.topk(kept, dim=1).indices
        return torch.zeros_like(similarities).scatter_(1, index, 1.0 / kept)
