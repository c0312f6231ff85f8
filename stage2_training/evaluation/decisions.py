"""Metrics over yes/no decisions: which labels were predicted, and how often that was right.

Throughout: decisions (N, C) bool, targets (N, C) int8 with 1 present, 0 absent, -1 unknown. Unknown cells are never
counted. Labels without a positive are left out of means over labels; callers report them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Targets = NDArray[np.int8]


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision, recall and F1, averaged over classes (C) and over all decisions (O); the field's six metrics."""

    CP: float
    CR: float
    CF1: float
    OP: float
    OR: float
    OF1: float


def precision_recall(decisions: Bools, targets: Targets) -> PrecisionRecall:
    """CP CR CF1 OP OR OF1: CP is 0 for a class never predicted, CF1 is the harmonic mean of CP and CR.

    The overall metrics count every known cell, including false positives of labels without positives.
    """
    right, predicted, present = _counts(decisions, targets)
    scored = present > 0
    class_precision = np.divide(right, predicted, out=np.zeros_like(right), where=predicted > 0)[scored]
    class_recall = right[scored] / present[scored]
    cp, cr = _mean(class_precision), _mean(class_recall)
    op, or_ = _ratio(right.sum(), predicted.sum()), _ratio(right.sum(), present.sum())
    return PrecisionRecall(CP=cp, CR=cr, CF1=harmonic_mean(cp, cr), OP=op, OR=or_, OF1=harmonic_mean(op, or_))


def top_k_decisions(probabilities: NDArray[np.floating[Any]], targets: Targets, k: int) -> Bools:
    """(N, C) bool: the k most probable known labels of each image, whatever their probability.

    Ties go to the first label; an image with fewer than k known labels keeps them all.
    """
    ranked = np.argsort(-np.where(targets >= 0, probabilities, -1.0), axis=1, kind="stable")[:, :k]
    decisions = np.zeros(targets.shape, dtype=bool)
    np.put_along_axis(decisions, ranked, True, axis=1)
    return decisions & (targets >= 0)


def mean_accuracy(decisions: Bools, targets: Targets) -> float:
    """mA of pedestrian attributes: the mean over labels of (TP/P + TN/N)/2.

    Labels without positives or without negatives are left out; nan if no label has both.
    """
    known = targets >= 0
    positive, negative = targets == 1, targets == 0
    scored = positive.any(axis=0) & negative.any(axis=0)
    true_positive = (decisions & positive).sum(axis=0)[scored] / positive.sum(axis=0)[scored]
    true_negative = (~decisions & known & negative).sum(axis=0)[scored] / negative.sum(axis=0)[scored]
    return _mean((true_positive + true_negative) / 2)


@dataclass(frozen=True)
class InstanceFigures:
    """Accuracy (intersection over union), precision, recall, averaged over images; F1 from the two means."""

    accuracy: float
    precision: float
    recall: float
    F1: float


def instance_figures(decisions: Bools, targets: Targets) -> InstanceFigures:
    """The instance-based metrics of pedestrian attributes; an empty prediction, truth or union counts as 0."""
    positive, predicted = targets == 1, decisions & (targets >= 0)
    right = (predicted & positive).sum(axis=1).astype(float)

    def over(size: NDArray[np.int64]) -> float:
        return float(np.divide(right, size, out=np.zeros_like(right), where=size > 0).mean())

    precision, recall = over(predicted.sum(axis=1)), over(positive.sum(axis=1))
    return InstanceFigures(
        accuracy=over((predicted | positive).sum(axis=1)),
        precision=precision,
        recall=recall,
        F1=harmonic_mean(precision, recall),
    )


def harmonic_mean(a: float, b: float) -> float:
    """2ab/(a+b), or 0 if both are 0."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def _counts(decisions: Bools, targets: Targets) -> tuple[NDArray[np.float64], ...]:
    """The number of true positive, predicted and present cells of each label, (C,) each."""
    predicted = decisions & (targets >= 0)
    present = targets == 1
    return tuple(cells.sum(axis=0).astype(float) for cells in (predicted & present, predicted, present))


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else 0.0


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
