"""How sure a figure is: percentile bootstrap over images, for one model or for the difference of two.

A resample draws N images with replacement. Classes that lose all their positives in a resample are left out of that
resample's mean, as absent classes are everywhere.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.evaluation.average_precision import average_precision
from sspa.stage2_training.evaluation.protocol import Protocol

# Memory for one label's work: this many resamples at once times N doubles, a handful of times.
_CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds between which `level` of the resamples fall."""

    value: float
    low: float
    high: float
    level: float
    resamples: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.level:.0%}, {self.resamples} resamples)"


def map_interval(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.int8],
    protocol: Protocol,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of mAP; probabilities and targets (N, C) as in `evaluate_scores`."""
    drawn = resampled_map(probabilities, targets, protocol, resamples, seed)
    return _interval(_whole_map(probabilities, targets, protocol), drawn, level)


def map_difference_interval(
    one: NDArray[np.floating[Any]],
    other: NDArray[np.floating[Any]],
    targets: NDArray[np.int8],
    protocol: Protocol,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of mAP(one) - mAP(other) on the same images, both scored on the same resamples (paired)."""
    drawn = [resampled_map(scores, targets, protocol, resamples, seed) for scores in (one, other)]
    whole = [_whole_map(scores, targets, protocol) for scores in (one, other)]
    return _interval(whole[0] - whole[1], drawn[0] - drawn[1], level)


def resampled_map(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.int8],
    protocol: Protocol,
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """(R,) mAP of each resample; the resamples depend on N and `seed` alone."""
    count, label_count = targets.shape
    rng = np.random.default_rng(seed)
    maps = []
    for start in range(0, resamples, _CHUNK):
        times = rng.multinomial(count, np.full(count, 1 / count), size=min(_CHUNK, resamples - start))  # (R, N)
        weights = times.astype(np.float64)
        per_class = np.full((len(weights), label_count), np.nan)
        for label in range(label_count):
            known = targets[:, label] >= 0
            if known.any():
                per_class[:, label] = average_precision(
                    probabilities[known, label],
                    targets[known, label] == 1,
                    weights[:, known],
                    protocol.average_precision,
                )
        maps.append(_nanmean(per_class))
    return np.concatenate(maps)


def _whole_map(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.int8], protocol: Protocol) -> float:
    from sspa.stage2_training.evaluation.metrics import class_average_precisions

    return float(np.nanmean(class_average_precisions(probabilities, targets, protocol)))


def _interval(value: float, drawn: NDArray[np.float64], level: float) -> Interval:
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, len(drawn))


def _nanmean(per_class: NDArray[np.float64]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample without any positive is nan
        mean: NDArray[np.float64] = np.nanmean(per_class, axis=1)
    return mean
