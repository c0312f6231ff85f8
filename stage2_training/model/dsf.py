"""DSF, dynamic semantic filtering: each label's text selects the image regions relevant to it.

Legend: B images, M regions, C labels, d width of the joint space.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sspa.stage2_training.model.options import DsfOptions


def dynamic_semantic_filtering(queries: Tensor, regions: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Single-head attention whose values are the regions themselves.

    Args:
        queries: (C, d) mapped label features.
        regions: (B, M, d).
        scale: scalar; multiplies the cosine of query and region.

    Returns:
        filtered (B, C, d) and the attention (B, C, M), each row of which sums to 1 over M.

    Source: the paper's figure; cosine in place of the plain product is a reconstruction (with
    unit-norm features a factor 1/sqrt(d) starts almost uniform).
    """
    cosine = F.normalize(queries, dim=-1) @ F.normalize(regions, dim=-1).mT  # (B, C, M)
    attention = (scale * cosine).softmax(dim=-1)
    return attention @ regions, attention


class DynamicSemanticFiltering(nn.Module):
    """T, X -> T_ca (B, C, d)."""

    def __init__(self, width: int, options: DsfOptions) -> None:
        super().__init__()
        self.text_map = nn.Linear(width, width, bias=False)
        # Untrained, labels and regions are compared directly: zero-shot attention.
        nn.init.eye_(self.text_map.weight)
        self.log_scale = nn.Parameter(torch.tensor(math.log(options.scale)))
        self.residual = options.residual

    def forward(self, text: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """text (C, d), regions (B, M, d) -> T_ca (B, C, d), attention (B, C, M)."""
        filtered, attention = dynamic_semantic_filtering(self.text_map(text), regions, self.log_scale.exp())
        return (text + filtered if self.residual else filtered), attention
