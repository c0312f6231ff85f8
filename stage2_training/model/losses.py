"""Losses over partially known labels; `loss.kind` selects one, each with its own options.

Legend: B images, C labels; targets hold 1, 0, and -1 for unknown.
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor
from torch.nn import functional as F

from sspa.stage2_training.model.loss_options import AslOptions, BceOptions, Loss, LossOptions, TwoWayOptions


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
