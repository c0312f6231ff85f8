"""How sure a difference of two methods is: paired bootstrap over test images and seeds.

Legend: N images, C labels, S seeds, R resamples.
"""

import numpy as np

from sspa.stage2_training.evaluation.average_precision import Floats


def difference_interval(ours: Floats, reference: Floats, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """The central `level` interval of the mean difference, over images and seeds.

    Args:
        ours, reference: (S, R) mAP by seed and resample of images; run s of both has the same seed.
        seed: of the draw of seeds.
    """
    seeds, resamples = ours.shape
    drawn = np.random.Generator(np.random.Philox(key=seed)).integers(seeds, size=(seeds, resamples))
    differences = np.take_along_axis(ours - reference, drawn, axis=0).mean(axis=0)
    tail = (1 - level) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(low), float(high)
