"""Images without detail: out of focus, shaken, or empty. A hint for a person to look at, not a verdict."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.terminal import progress
from sspa.stage2_training.data.image_files import load_image

# The longer side at which detail is measured, so that it does not depend on the camera.
_PIXELS = 256
# Of 150 VOC photos one is below; of the same, blurred by a Gaussian of 2/384 of their size, 97% are (docs/results.md).
BLURRED = 0.05


def blurred_images(paths: Sequence[Path]) -> list[tuple[Path, float]]:
    """Images whose `sharpness` is below `BLURRED`, and it, the least sharp first; unreadable images are passed over."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress("looking for detail", len(paths), "images") as bar:
        found = []
        for path, value in zip(paths, pool.map(_sharpness_of, paths), strict=True):
            bar.advance()
            if value is not None and value < BLURRED:
                found.append((path, value))
    return sorted(found, key=lambda one: one[1])


def sharpness(image: Image.Image) -> float:
    """The variance of the image's Laplacian over that of its brightness, at 256 pixels; 0 for an even image.

    The variance of the Laplacian is the usual measure of focus (Pech-Pacheco et al., ICPR 2000); divided by the
    contrast it does not take fog for blur.
    """
    small = image.convert("L")
    small.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    grey: NDArray[np.float32] = np.asarray(small, dtype=np.float32)
    if min(grey.shape) < 3:
        return float("inf")  # too small to tell
    sides = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((sides - 4 * grey[1:-1, 1:-1]).var() / max(float(grey.var()), 1.0))


def _sharpness_of(path: Path) -> float | None:
    try:
        return sharpness(load_image(path, at_least=_PIXELS))
    except UserError:
        return None
