"""Confidence intervals of mAP: percentile bootstrap over images.

A resample draws N images with replacement. Classes that lose all their positives in a resample are left out of that
resample's mean, as absent classes are everywhere. With a few dozen images the resamples are biased upwards (a
duplicated positive raises its own precision); with a few hundred the bias is below a fifth of a point. Scoring two
methods with the same weights gives a paired comparison.

Legend: N images, C labels, R resamples.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.evaluation.average_precision import Floats, average_precision
from sspa.stage2_training.evaluation.metrics import class_average_precisions
from sspa.stage2_training.evaluation.protocol import Protocol

# Resamples computed together: N times this many doubles, beside a few arrays for the positives of one label.
_AT_ONCE = 250


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of the central `level` of its resamples."""

    value: float
    low: float
    high: float
    level: float
    resamples: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.level:.0%}, {self.resamples} resamples)"


def map_interval(
    probabilities: Floats,
    targets: NDArray[np.int8],
    protocol: Protocol,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of mAP; probabilities and targets (N, C) as in `evaluate_scores`."""
    value = float(np.nanmean(class_average_precisions(probabilities, targets, protocol)))
    drawn = resampled_map(probabilities, targets, protocol, resampling_weights(len(targets), resamples, seed))
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, resamples)


def resampling_weights(images: int, resamples: int, seed: int = 0) -> NDArray[np.int32]:
    """(R, N): how often each image is drawn when N are drawn with replacement; deterministic."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    weights: NDArray[np.int32] = generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(
        np.int32
    )
    return weights


def resampled_map(
    probabilities: Floats, targets: NDArray[np.int8], protocol: Protocol, weights: NDArray[Any]
) -> NDArray[np.float64]:
    """(R,) mAP with each row of weights (R, N); nan for a resample without any positive."""
    maps = []
    for start in range(0, len(weights), _AT_ONCE):
        part = np.ascontiguousarray(weights[start : start + _AT_ONCE].T, dtype=np.float64)  # (N, R)
        per_class = np.full((part.shape[1], targets.shape[1]), np.nan)
        for label in range(targets.shape[1]):
            known = targets[:, label] >= 0
            if known.any():
                scores, positive = probabilities[known, label], targets[known, label] == 1
                drawn = (part if known.all() else part[known]).T
                per_class[:, label] = average_precision(scores, positive, drawn, protocol.average_precision)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean over no classes is nan, as documented
            maps.append(np.nanmean(per_class, axis=1))
    return np.concatenate(maps)
