"""Losses over labels of which some are unknown.

Legend: B images, C labels; targets hold 1, 0, and -1 for unknown.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor
from torch.nn import functional as F

from sspa.stage2_training.model.options import Fraction, Options


class LossOptions(Options):
    """What is summed over the branches (reconstruction)."""

    kind: Literal["asl", "bce", "two-way"] = "asl"
    gamma_negative: Annotated[float, Field(ge=0)] = Field(2.0, description="asl: focus on negatives")
    gamma_positive: Annotated[float, Field(ge=0)] = Field(0.0, description="asl: focus on positives")
    clip: Fraction = Field(0.05, description="asl: probability below which a negative costs nothing")
    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="two-way: of its soft maximum")
    smoothing: Fraction = Field(0.0, description="label smoothing: targets become s/2 and 1 - s/2")


def masked_loss(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """The loss of one branch: summed over the known labels, mean over images; a scalar.

    Args:
        logits: (B, C).
        targets: (B, C) of 1, 0, -1; a label that is -1 has no loss and no gradient.

    Source: asl is Ridnik et al., ICCV 2021, as timm computes it; two-way is Kobayashi, CVPR 2023.
    """
    logits = logits.float()
    known = targets >= 0
    if options.kind == "two-way":
        return two_way_loss(logits, targets, options.temperature)
    smooth = targets.clamp(min=0).float() * (1 - options.smoothing) + options.smoothing / 2
    if options.kind == "bce":
        each = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        return (each * known).sum() / len(logits)
    # timm sums over all labels: an unknown one is sent in as a certain, correct negative, whose
    # loss and gradient are zero.
    asl = AsymmetricLossMultiLabel(options.gamma_negative, options.gamma_positive, options.clip, reduction="sum")
    return asl(logits.masked_fill(~known, -1e4), smooth.masked_fill(~known, 0.0)) / len(logits)


def two_way_loss(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """softplus(log-sum-exp of the negatives + T log-sum-exp of the negated positives / T), once a row
    (image) and once a column (label), each mean over those that have a positive; their sum.

    Source: Kobayashi, "Two-way multi-label loss", CVPR 2023.
    """

    def one_way(dim: int) -> Tensor:
        negative = logits.masked_fill(targets != 0, float("-inf")).logsumexp(dim=dim)
        positive = (-logits / temperature).masked_fill(targets != 1, float("-inf")).logsumexp(dim=dim)
        has_both = ((targets == 1).any(dim=dim)) & ((targets == 0).any(dim=dim))
        if not has_both.any():
            return logits.sum() * 0.0
        return F.softplus(negative[has_both] + temperature * positive[has_both]).mean()

    return one_way(1) + one_way(0)


def total_loss(logits_by_branch: dict[str, Tensor], targets: Tensor, options: LossOptions) -> Tensor:
    """Loss = L_G + L_R: the sum over the branches."""
    return torch.stack([masked_loss(logits, targets, options) for logits in logits_by_branch.values()]).sum()
