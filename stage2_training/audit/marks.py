"""How much each given mark is to be trusted, by predictions of models that did not see its image.

Confident learning (Northcutt et al., JAIR 2021), label by label, from the library cleanlab.

Legend: N images, C labels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

_LEVEL = 0.95


@dataclass(frozen=True)
class Expected:
    """How many marks are probably wrong: a count with a 95% interval of the images' chance (Wilson).

    That the model itself errs is not in the interval.
    """

    count: int
    low: float
    high: float


@dataclass(frozen=True)
class LabelAudit:
    """One label's marks: how many are given, and how many of them are probably wrong.

    Attributes:
        present, absent: marks of 1 and of 0.
        wrongly_present, wrongly_absent: of these; None where one of both is missing, so that nothing can be learned.
    """

    present: int
    absent: int
    wrongly_present: Expected | None
    wrongly_absent: Expected | None


def mark_qualities(probabilities: NDArray[np.floating], targets: NDArray[np.int8]) -> NDArray[np.float64]:
    """(N, C): the probability of each given mark, from 0, surely wrong, to 1; nan where nothing is known.

    Confident learning's adjustment by the mean of each kind of mark was tried and ranks worse (docs/results.md).

    Args:
        probabilities: (N, C), of models that were not trained on the image.
        targets: (N, C); 1 present, 0 absent, -1 unknown.
    """
    qualities = np.where(targets == 1, probabilities, 1 - probabilities).astype(np.float64)
    qualities[targets < 0] = np.nan
    return qualities


def probably_wrong(probabilities: NDArray[np.floating], targets: NDArray[np.int8]) -> NDArray[np.bool_]:
    """(N, C): whether the model is as sure of the opposite mark as it is, on average, of marks of that kind.

    No mark of a label that has marks of one kind only is wrong: nothing can be learned about it.
    """
    from cleanlab.filter import find_label_issues

    wrong = np.zeros(targets.shape, dtype=bool)
    for label in range(targets.shape[1]):
        known = targets[:, label] >= 0
        given = targets[known, label].astype(np.int64)
        if len(np.unique(given)) == 2:
            present = probabilities[known, label].astype(np.float64)
            by_kind = np.stack([1 - present, present], axis=1)
            wrong[known, label] = find_label_issues(given, by_kind, filter_by="confident_learning", n_jobs=1)
    return wrong


def audit_labels(targets: NDArray[np.int8], wrong: NDArray[np.bool_]) -> list[LabelAudit]:
    """What is expected of each label's marks, given which are `probably_wrong`."""
    return [_audit_label(targets[:, label], wrong[:, label]) for label in range(targets.shape[1])]


def _audit_label(targets: NDArray[np.int8], wrong: NDArray[np.bool_]) -> LabelAudit:
    present, absent = targets == 1, targets == 0
    if not present.any() or not absent.any():
        return LabelAudit(int(present.sum()), int(absent.sum()), None, None)
    return LabelAudit(int(present.sum()), int(absent.sum()), _expected(wrong[present]), _expected(wrong[absent]))


def _expected(wrong: NDArray[np.bool_]) -> Expected:
    count, of = int(wrong.sum()), len(wrong)
    interval = binomtest(count, of).proportion_ci(_LEVEL, method="wilson")
    return Expected(count, interval.low * of, interval.high * of)
