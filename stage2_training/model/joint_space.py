"""The space the model's parts work in: the backbone's joint space, or a narrower one initialised as its PCA.

Legend: d width of the backbone's joint space, w width of the model's parts.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def principal_basis(parts: Sequence[Tensor], width: int) -> Tensor:
    """The orthonormal directions that keep most of the parts' energy, each part (N, d) with the same weight:
    (width, d).

    Uncentred, so that inner products of projected vectors stay close to the original ones.
    """
    moments = [features.mT @ features for features in map(Tensor.double, parts)]
    # The trace of a part's second moment is its energy.
    _, vectors = torch.linalg.eigh(sum(moment / moment.trace() for moment in moments))  # ascending eigenvalues
    return vectors[:, -width:].mT.flip(0).float()


def unit_rms(features: Tensor) -> Tensor:
    """Scaled to a root mean square of 1 along the last axis, as every part of the model expects."""
    return F.normalize(features, dim=-1) * math.sqrt(features.shape[-1])


# The widest joint space used as it is; a wider one is narrowed to `_NARROWED`.
_WIDEST, _NARROWED = 1024, 256


class JointSpace(nn.Module):
    """Maps of image and of text features, (..., d) -> (..., w), scaled to a root mean square of 1.

    If w equals d (every CLIP), nothing is learned. If it is less, two linear maps are initialised as the same PCA basis
    of image regions and label texts, so that the untrained model stays near zero-shot (reconstruction).
    """

    def __init__(self, backbone_width: int, width: int | None) -> None:
        super().__init__()
        self.width = min(width or (backbone_width if backbone_width <= _WIDEST else _NARROWED), backbone_width)
        self.narrower = self.width < backbone_width
        self.image = nn.Linear(backbone_width, self.width, bias=False) if self.narrower else nn.Identity()
        self.text = nn.Linear(backbone_width, self.width, bias=False) if self.narrower else nn.Identity()

    @torch.no_grad()
    def start_from(self, regions: Tensor, texts: Tensor) -> None:
        """Initialise both maps as the principal basis of `regions` (..., d) and `texts` (S, d)."""
        if self.narrower:
            basis = principal_basis([regions.flatten(0, -2), texts], self.width)
            for mapping in (self.image, self.text):
                mapping.load_state_dict({"weight": basis})

    def of_image(self, features: Tensor) -> Tensor:
        """(..., d) -> (..., w)."""
        return unit_rms(self.image(features))

    def of_text(self, features: Tensor) -> Tensor:
        """(..., d) -> (..., w)."""
        return unit_rms(self.text(features))
