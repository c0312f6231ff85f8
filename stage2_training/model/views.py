"""Views of an image, and the mean over them.

Legend: B images, C labels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sspa.stage2_training.model.options import View


def under_view(images: Tensor, view: View) -> Tensor:
    """images (B, 3, H, W) under `view`: "mirrored" flips them horizontally."""
    return images.flip(-1) if view == "mirrored" else images


def mean_over_views(by_view: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Each branch's mean over the views of its probabilities (B, C)."""
    return {branch: torch.stack([view[branch] for view in by_view]).mean(dim=0) for branch in by_view[0]}
