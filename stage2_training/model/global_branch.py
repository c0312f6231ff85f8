"""The global branch, and the scale and bias that turn a cosine into a logit.

Legend: B images, C labels, d width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LogitScale(nn.Module):
    """scale * score + bias, both learnable scalars; storing the scale's logarithm keeps it positive."""

    def __init__(self, scale: float, bias: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, scores: Tensor) -> Tensor:
        return self.log_scale.exp() * scores + self.bias


class GlobalBranch(nn.Module):
    """logit_G = scale * cos(x0, T_g) + bias: the whole image against the branch's own prompts."""

    def __init__(self, scale: float, bias: float) -> None:
        super().__init__()
        self.to_logit = LogitScale(scale, bias)

    def forward(self, x0: Tensor, t_g: Tensor) -> Tensor:
        """x0 (B, d), t_g (C, d) -> logits (B, C)."""
        return self.to_logit(F.normalize(x0, dim=-1) @ F.normalize(t_g, dim=-1).mT)
