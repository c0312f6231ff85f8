"""Input sizes other than a tower's own: which are possible, and its position embeddings at the new size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sspa.shared.errors import UserError


def grid_of(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the patch grid of an image of size (H, W).

    Raises:
        UserError: the patch does not divide the size.
    """
    if size[0] % patch[0] or size[1] % patch[1]:
        raise UserError(
            f"image size {size[0]}x{size[1]}: the tower sees patches of {patch[0]}x{patch[1]} pixels, which do not"
            f" divide it; take multiples of {patch[0]}, such as {_near(size[0], patch[0])}x{_near(size[1], patch[1])}"
        )
    return size[0] // patch[0], size[1] // patch[1]


def interpolate_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embeddings (1 + old M, width) -> (1 + new M, width), bicubic with antialiasing.

    The first row belongs to the class token (of a ViT) or the mean (of a ResNet's pool) and is kept.
    """
    first, grid = positions[:1], positions[1:]
    grid = grid.reshape(1, *old, -1).permute(0, 3, 1, 2)  # (1, width, rows, columns)
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, grid.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1)])


def _near(length: int, patch: int) -> int:
    return max(1, round(length / patch)) * patch
