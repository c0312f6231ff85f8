"""Losses over partially known labels; `loss.kind` selects one, each with its own options.

Legend: B images, C labels; targets hold 1, 0, and -1 for unknown.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor
from torch.nn import functional as F

from sspa.stage2_training.model.options import Fraction, Options, PositiveFloat


class Loss(Options):
    """Properties of a loss besides its options.

    Attributes:
        couples_images: the loss is not a sum over images, so a batch cannot be split into parts.
        ignores_shift: the loss is invariant to adding a constant to all logits, so it cannot fit their bias.
    """

    couples_images: ClassVar[bool] = False
    ignores_shift: ClassVar[bool] = False


class AslOptions(Loss):
    """Asymmetric loss (Ridnik et al., ICCV 2021), as timm computes it."""

    kind: Literal["asl"] = "asl"
    gamma_negative: Annotated[float, Field(ge=0)] = Field(2.0, description="focus on negatives (reconstruction)")
    gamma_positive: Annotated[float, Field(ge=0)] = Field(0.0, description="focus on positives (reconstruction)")
    clip: Fraction = Field(0.05, description="probability below which a negative costs nothing")
    smoothing: Fraction = Field(0.0, description="label smoothing: targets become s/2 and 1 - s/2")


class BceOptions(Loss):
    """Binary cross-entropy."""

    kind: Literal["bce"] = "bce"
    weighting: Literal["none", "frequency"] = Field(
        "none",
        description="frequency: of a label with the share p of positives in train, positives count exp(1 - p) and "
        "negatives exp(p) (Li et al., DeepMAR, ACPR 2015)",
    )
    smoothing: Fraction = Field(0.0, description="label smoothing: targets become s/2 and 1 - s/2")


class TwoWayOptions(Loss):
    """Two-way multi-label loss (Kobayashi, CVPR 2023): compares positives with negatives, per image and per label."""

    couples_images: ClassVar[bool] = True
    ignores_shift: ClassVar[bool] = True

    kind: Literal["two-way"] = "two-way"
    temperature: PositiveFloat = Field(4.0, description="of the soft maximum over positives")


LossOptions = Annotated[AslOptions | BceOptions | TwoWayOptions, Field(discriminator="kind")]


def total_loss(
    logits_by_branch: dict[str, Tensor], targets: Tensor, options: LossOptions, shares: Tensor | None = None
) -> Tensor:
    """Loss = L_G + L_R: the sum over the branches (reconstruction)."""
    return torch.stack([masked_loss(logits, targets, options, shares) for logits in logits_by_branch.values()]).sum()


def masked_loss(logits: Tensor, targets: Tensor, options: LossOptions, shares: Tensor | None = None) -> Tensor:
    """The loss of one branch: summed over known labels, averaged over images; a scalar, at least float32.

    Args:
        logits: (B, C).
        targets: (B, C) of 1, 0, -1; a -1 contributes neither loss nor gradient.
        shares: `positive_shares` of the training split, (C,); only a loss weighted by frequency needs them.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return _LOSSES[type(options)](logits, targets, options, shares)


def positive_shares(targets: Tensor) -> Tensor:
    """Each label's share of positives among its known cells, (N, C) -> (C,); 0.5 for a label without known cells."""
    known = (targets >= 0).sum(dim=0)
    return torch.where(known > 0, (targets == 1).sum(dim=0) / known.clamp(min=1), 0.5)


def _asymmetric_loss(logits: Tensor, targets: Tensor, options: AslOptions, _shares: Tensor | None) -> Tensor:
    # timm sums over all labels: an unknown one is passed as a certain, correct negative, whose loss and gradient
    # are zero.
    known = targets >= 0
    asl = AsymmetricLossMultiLabel(options.gamma_negative, options.gamma_positive, options.clip, reduction="sum")
    smooth = _smoothed(logits, targets, options.smoothing).masked_fill(~known, 0.0)
    return asl(logits.masked_fill(~known, -1e4), smooth) / len(logits)


def _binary_cross_entropy(logits: Tensor, targets: Tensor, options: BceOptions, shares: Tensor | None) -> Tensor:
    smooth = _smoothed(logits, targets, options.smoothing)
    each = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    if options.weighting == "frequency":
        if shares is None:
            raise ValueError("a loss weighted by frequency needs the shares of positives")
        shares = shares.to(logits)
        each = each * torch.where(targets == 1, (1 - shares).exp(), shares.exp())
    return (each * (targets >= 0)).sum() / len(logits)


def _two_way_loss(logits: Tensor, targets: Tensor, options: TwoWayOptions, _shares: Tensor | None) -> Tensor:
    """softplus(log-sum-exp of the negatives + T log-sum-exp of the negated positives / T), averaged over the rows
    (images) that have both kinds, plus the same over the columns (labels)."""

    def one_way(dim: int) -> Tensor:
        negative = logits.masked_fill(targets != 0, float("-inf")).logsumexp(dim=dim)
        positive = (-logits / options.temperature).masked_fill(targets != 1, float("-inf")).logsumexp(dim=dim)
        has_both = ((targets == 1).any(dim=dim)) & ((targets == 0).any(dim=dim))
        if not has_both.any():
            return logits.sum() * 0.0
        return F.softplus(negative[has_both] + options.temperature * positive[has_both]).mean()

    return one_way(1) + one_way(0)


def _smoothed(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return targets.clamp(min=0).to(logits.dtype) * (1 - smoothing) + smoothing / 2


_LOSSES: dict[type[Loss], Callable[[Tensor, Tensor, Any, Tensor | None], Tensor]] = {
    AslOptions: _asymmetric_loss,
    BceOptions: _binary_cross_entropy,
    TwoWayOptions: _two_way_loss,
}
