"""Decision thresholds: fixed, tuned for all labels together, or tuned per label.

Tuning uses val, or what models say of images that they were not trained on; the description accompanies every metric
that depends on a threshold.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ThresholdKind = Literal["fixed", "one", "each"]

# Chosen on folds of VOC2007, PETA and UC Merced (docs/results.md).
PRIOR = 4.0


@dataclass(frozen=True)
class Thresholds:
    """values: (C,) thresholds; description: their origin, in words."""

    values: NDArray[np.float64]
    description: str

    @classmethod
    def fixed(cls, value: float, label_count: int) -> "Thresholds":
        """A fixed threshold for all labels."""
        return cls(np.full(label_count, value), f"{value:g} for all labels")


def choose_thresholds(
    kind: ThresholdKind, fixed: float, probabilities: NDArray[np.floating[Any]], targets: NDArray[np.int8]
) -> Thresholds:
    """The thresholds of one kind: "fixed", or tuned on the given (val) scores as "one" or "each"."""
    if kind == "one":
        return tune_one(probabilities, targets)
    if kind == "each":
        return tune_each(probabilities, targets)
    return Thresholds.fixed(fixed, targets.shape[1])


def tune_one(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.int8]) -> Thresholds:
    """The one threshold with the best overall F1 (OF1) on the given (val) scores, (N, C) each."""
    known = targets >= 0
    best = _best_f1_threshold(probabilities[known], targets[known] == 1)
    return Thresholds(np.full(targets.shape[1], best), f"{best:.4f} for all labels, tuned on val for OF1")


def tune_each(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.int8],
    scored: str = "val",
    prior: float = PRIOR,
) -> Thresholds:
    """Per label, the threshold with the best F1 on the given scores, drawn to the one for all labels (ours).

    The best one of a few positives lies where they happened to lie. So the threshold of a label with n positives is
    its own by n / (n + prior), in logits; without positives it is the common one.

    Args:
        probabilities, targets: (N, C).
        scored: what the scores are of, in words.
        prior: how many positives the common threshold counts as.
    """
    common = tune_one(probabilities, targets).values[0]
    values = np.empty(targets.shape[1])
    alone = 0
    for label in range(targets.shape[1]):
        known = targets[:, label] >= 0
        positive = targets[known, label] == 1
        own = _best_f1_threshold(probabilities[known, label], positive)
        share = positive.sum() / (positive.sum() + prior) if positive.any() else 0.0
        values[label] = 1 / (1 + np.exp(-share * _logit(own) - (1 - share) * _logit(common)))
        alone += not positive.any()
    note = f", the common one ({common:.2f}) for {alone} without positives there" if alone else ""
    return Thresholds(values, f"one for each label, tuned on {scored} for its F1, drawn to a common one{note}")


def _best_f1_threshold(scores: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> float:
    """The middle between the score s for which "score >= s" has the best F1, the highest if several tie, and the next
    lower one; 0.5 without positives."""
    if not positive.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order].astype(np.float64)
    right = np.cumsum(positive[order])
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + positive.sum())
    below = np.append(sorted_scores[1:], 0.0)
    ends = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    best = np.argmax(np.where(ends, f1, -1.0))
    return float((sorted_scores[best] + below[best]) / 2)


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(clipped / (1 - clipped))
