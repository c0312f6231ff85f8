"""Confidence intervals of a difference of two methods: paired bootstrap over test images and seeds.

Each resample draws images and seeds jointly, with replacement, and scores both methods on the same images and seeds
(`resampled_map` with the same weights gives the columns here), so that what is easy or hard for both cancels. A label
that loses all its positives in a resample is left out of the means of both methods. With a single seed the interval
covers images only, and with two or three it underestimates the variation over seeds.

Legend: N images, C labels, S seeds, R resamples.
"""

import numpy as np

from sspa.stage2_training.evaluation.average_precision import Floats

# The second half of the generator's key, after the seed: images are drawn under (seed, 0), and seeds drawn from the
# same stream would be correlated with the images.
_STREAM = 1


def draw_seeds(seeds: int, resamples: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(S, R): the S seeds, drawn with replacement, of each resample."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, _STREAM], dtype=np.uint64)))
    return generator.integers(seeds, size=(seeds, resamples))


def difference_interval(
    ours: Floats, reference: Floats, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """The central `level` interval of the mean difference, over images and seeds; None if nothing can be compared.

    Args:
        ours, reference: (S, R) mAP by seed and resample of images; row s of both is the same seed, column r the
            same images. A resample without any positive is nan and left out.
        seed: of the draw of seeds.
    """
    drawn = draw_seeds(len(ours), ours.shape[1], seed)
    differences = np.take_along_axis(ours - reference, drawn, axis=0).mean(axis=0)
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(low), float(high)
