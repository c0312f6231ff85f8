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
        weights: (R, N), the multiplicity of each image in each of R resamples; one resample of ones if None.
        form: "non-interpolated": (1/P) sum over positives of the precision at their rank (scikit-learn, COCO
            papers); "interpolated": the same over the running maximum of precision from the right (VOC 2010 and
            Query2Label's evaluation code); "11-point": the mean of that maximum at recalls 0, 0.1 ... 1 (VOC 2007).

    Returns:
        (R,) average precisions; nan for a resample without positives.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, sorted_positive = scores[order], positive[order]
    weights = np.ones((1, len(scores))) if weights is None else weights[:, order]
    ends = np.append(sorted_scores[1:] != sorted_scores[:-1], True)  # (N,): the last image of each score
    true_found = np.cumsum(weights * sorted_positive, axis=1)[:, ends]  # (R, E)
    found = np.cumsum(weights, axis=1)[:, ends]
    positives = true_found[:, -1]  # (R,)
    precision = np.divide(true_found, found, out=np.zeros_like(true_found), where=found > 0)
    if form != "non-interpolated":
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    if form == "11-point":
        # Compares counts instead of recalls: 3/10 >= 0.3 must not depend on rounding.
        reached = true_found[:, None, :] * 10 >= np.arange(11)[None, :, None] * positives[:, None, None]  # (R, 11, E)
        total = np.take_along_axis(precision, reached.argmax(axis=2), axis=1).mean(axis=1)
    else:
        gained = np.diff(true_found, axis=1, prepend=0.0)  # (R, E)
        total = np.divide(
            (gained * precision).sum(axis=1), positives, out=np.zeros_like(positives), where=positives > 0
        )
    return np.where(positives > 0, total, np.nan)
