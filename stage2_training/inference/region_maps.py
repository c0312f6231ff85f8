"""Where in the image a label was seen.

Legend: B images, M regions, C labels.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sspa.stage2_training.model.contract import Evidence


def region_maps(evidence: Evidence) -> Tensor:
    """Each region's weight times its probability for each label, (B, M, C), non-negative.

    The probability is the sigmoid of the region's logit, so that maps are comparable to those of heads without
    cosines, and a region that contradicts a label contributes almost nothing.
    """
    return evidence.region_weights.float() * evidence.region_logits.float().sigmoid()


def strongest_region(region_map: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom), in pixels, of the highest cell of a map (rows, columns).

    Args:
        size: the image's (width, height); the map covers the whole of it.
    """
    rows, columns = region_map.shape
    row, column = divmod(int(region_map.argmax()), columns)
    width, height = size
    return (
        round(column * width / columns),
        round(row * height / rows),
        round((column + 1) * width / columns),
        round((row + 1) * height / rows),
    )
