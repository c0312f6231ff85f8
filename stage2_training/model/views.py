"""Views of an image, and the one rule for averaging probabilities over views and branches.

Legend: B images, C labels.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

View = Literal["plain", "mirrored"]


def under_view(images: Tensor, view: View) -> Tensor:
    """images (B, 3, H, W) under `view`: "mirrored" flips them horizontally."""
    return images.flip(-1) if view == "mirrored" else images


def mean_over_branches(by_branch: Mapping[str, Tensor], shares: Tensor | None = None) -> Tensor:
    """The prediction: the mean of the branches' probabilities, each (B, C); `shares`, one per branch, weight it."""
    stacked = torch.stack(list(by_branch.values()))
    return stacked.mean(dim=0) if shares is None else (stacked * shares[:, None, None]).sum(dim=0)


def mean_over_views(by_view: Sequence[Tensor]) -> Tensor:
    """The mean of the probabilities (B, C) under each view."""
    return torch.stack(list(by_view)).mean(dim=0)
