"""Average precision of one label in its three published forms, with ties treated as in scikit-learn.

Images with the same score share one rank: precision is evaluated only after the last of them. That makes the
result independent of the order of the images.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.evaluation.protocol import APForm

Floats = NDArray[np.floating[Any]]


def average_precision(
    scores: Floats, positive: NDArray[np.bool_], weights: Floats | None = None, form: APForm = "non-interpolated"
) -> Floats:
    """Average precision of one label.

    Args:
        scores: (N,), higher means more likely; only their order matters.
        positive: (N,), whether the label is present.
        weights: (R, N), the multiplicity of each image in each of R resamples; one resample of ones if None. Fastest
            as a view whose transpose is contiguous.
        form: "non-interpolated": (1/P) sum over positives of the precision at their rank (scikit-learn, COCO
            papers); "interpolated": the same over the running maximum of precision from the right (VOC 2010 and
            Query2Label's evaluation code); "11-point": the mean of that maximum at recalls 0, 0.1 ... 1 (VOC 2007).

    Returns:
        (R,) average precisions; nan for a resample without positives.
    """
    resamples = 1 if weights is None else len(weights)
    order = np.argsort(-scores, kind="stable")
    sorted_scores, sorted_positive = scores[order], positive[order]
    last_of_score = np.flatnonzero(np.append(sorted_scores[1:] != sorted_scores[:-1], True))
    # Only scores that a positive has matter: between them precision falls, which no form sees.
    positives_so_far = np.cumsum(sorted_positive)[last_of_score]
    ends = last_of_score[np.diff(positives_so_far, prepend=0) > 0] + 1  # (E,)
    if not len(ends):
        return np.full(resamples, np.nan)
    found = _sums_up_to(ends, order, weights)  # (E, R)
    ranks = np.flatnonzero(sorted_positive)
    true_found = _sums_up_to(np.searchsorted(ranks, ends), order[ranks], weights)  # (E, R)
    positives = true_found[-1]  # (R,)
    precision = np.divide(true_found, found, out=np.zeros_like(true_found), where=found > 0)
    if form != "non-interpolated":
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    if form == "11-point":
        # Compares counts instead of recalls: 3/10 >= 0.3 must not depend on rounding.
        firsts = [(true_found * 10 >= tenths * positives).argmax(axis=0) for tenths in range(11)]  # 11 of (R,)
        total = np.mean([precision[first, np.arange(resamples)] for first in firsts], axis=0)
    else:
        gained = np.diff(true_found, axis=0, prepend=0.0)
        total = np.divide(
            (gained * precision).sum(axis=0), positives, out=np.zeros_like(positives), where=positives > 0
        )
    return np.where(positives > 0, total, np.nan)


def _sums_up_to(ends: NDArray[np.int64], images: NDArray[np.int64], weights: Floats | None) -> Floats:
    """(E, R): in each of R resamples, the sum of the weights (R, N) of `images[: ends[e]]`; `ends` ascend."""
    if weights is None:
        return ends[:, None].astype(np.float64)
    from scipy.sparse import csr_array

    # A sparse product reads the weights of each image in place, where sorting would copy all of them.
    rows = np.concatenate([[0], ends])
    between = csr_array((np.ones(ends[-1]), images[: ends[-1]], rows), shape=(len(ends), weights.shape[1]))
    sums: Floats = np.cumsum(between @ weights.T, axis=0)
    return sums
