"""How sure a difference of two methods is: paired bootstrap over test images and seeds.

Each resample draws images and seeds together, with replacement, and scores both methods on what it drew: the same
images, the same seeds (`resampled_map` under the same weights gives the columns here). What both find easy or hard
cancels. A label that loses all its positives in a resample leaves the mean of both methods alike. With a single seed
the interval speaks of images only, and with two or three it is narrower than the truth about seeds.

Legend: N images, C labels, S seeds, R resamples.
"""

import numpy as np

from sspa.stage2_training.evaluation.average_precision import Floats

# Beside the seed, the second half of the generator's key: images are drawn under (seed, 0), and a draw of seeds from
# the same stream would go together with the draw of images.
_STREAM = 1


def draw_seeds(seeds: int, resamples: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(S, R): which S of the S seeds, with replacement, each resample holds."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, _STREAM], dtype=np.uint64)))
    return generator.integers(seeds, size=(seeds, resamples))


def difference_interval(
    ours: Floats, reference: Floats, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """The central `level` interval of the mean difference, over images and seeds; None where nothing can be compared.

    Args:
        ours, reference: (S, R) mAP by seed and resample of images; row s of both is the same seed, column r the
            same images. nan where a resample holds no positive at all: it is left out.
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
