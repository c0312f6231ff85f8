"""How sure a difference of two methods is: paired bootstrap over test images and seeds.

Legend: N images, C labels, S seeds, R resamples.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.evaluation.average_precision import average_precision
from sspa.stage2_training.evaluation.protocol import Protocol

Floats = NDArray[np.floating[Any]]


def resampling_weights(images: int, resamples: int, seed: int = 0) -> Floats:
    """(R, N): how often each image is drawn when N are drawn with replacement; the same for every method."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)


def resampled_map(probabilities: Floats, targets: NDArray[np.int8], protocol: Protocol, weights: Floats) -> Floats:
    """(R,) mAP of one run under each resample; a label without positives there is left out of that mean."""
    per_class = []
    for label in range(targets.shape[1]):
        known = targets[:, label] >= 0
        if (targets[:, label] == 1).any():
            scores, positive = probabilities[known, label], targets[known, label] == 1
            per_class.append(average_precision(scores, positive, weights[:, known], protocol.average_precision))
    return np.nanmean(per_class, axis=0)


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
