"""Where in the image a label was seen.

Legend: B images, M regions, C labels.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sspa.stage2_training.model.contract import Evidence


def region_maps(evidence: Evidence) -> Tensor:
    """Each region's weight times what it said of each label, (B, M, C), at least 0.

    What it said is its similarity on the scale of probabilities (the sigmoid of its logit), so that a map
    means the same for a head without cosines, and a region that speaks against a label adds nothing.
    """
    return evidence.region_weights.float() * evidence.region_logits.float().sigmoid()


def strongest_region(region_map: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) in pixels of the map's (rows, columns) highest cell.

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
