"""All metrics of one evaluation, under one protocol: `evaluate_scores`."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.stage2_training.evaluation.average_precision import average_precision
from sspa.stage2_training.evaluation.decisions import (
    InstanceFigures,
    PrecisionRecall,
    instance_figures,
    mean_accuracy,
    precision_recall,
    top_k_decisions,
)
from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.evaluation.thresholds import Thresholds

CALIBRATION_BINS = 15

# (N, C) float32 per branch: "region", "global", "knowledge", and "both", their mean by their shares: the prediction. It
# is called so in files, since the paper's two branches were all there was.
Probabilities = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Metrics:
    """The metrics of one evaluation, between 0 and 1.

    Attributes:
        protocol: name and hash of the protocol.
        images: the number of images scored.
        mAP: mean of `per_class`.
        per_class: AP by label key, for labels with a positive.
        absent: labels without a positive, which have no AP and are left out of means over labels.
        at_threshold: CP CR CF1 OP OR OF1 at `thresholds`.
        at_top_k: the same for the k most probable labels of each image.
        mA: mean of (TP/P + TN/N)/2 over labels (pedestrian attributes).
        instances: instance accuracy, precision, recall and F1 (pedestrian attributes).
        auroc_macro: mean over labels that have both kinds; nan if none has.
        auroc_micro: over all known cells at once.
        calibration_error: expected calibration error over all known cells, 15 equal bins.
        thresholds: the thresholds used, in words.
        unknown_cells: the number of unknown cells, which are left out.
    """

    protocol: str
    protocol_hash: str
    images: int
    mAP: float
    per_class: dict[str, float]
    absent: tuple[str, ...]
    at_threshold: PrecisionRecall
    at_top_k: PrecisionRecall
    top_k: int
    mA: float
    instances: InstanceFigures
    auroc_macro: float
    auroc_micro: float
    calibration_error: float
    thresholds: str
    unknown_cells: int

    def figure(self, name: str) -> float:
        """One metric by its name in a protocol's headline: "mAP", "CF1", "mA", "F1", "CF1@3"."""
        if name in ("mAP", "mA"):
            return float(getattr(self, name))
        if name in InstanceFigures.__dataclass_fields__:
            return float(getattr(self.instances, name))
        plain, _, k = name.partition("@")
        if k not in ("", str(self.top_k)):
            raise ValueError(f"no figure {name!r}: the top {self.top_k} were scored")
        return float(getattr(self.at_top_k if k else self.at_threshold, plain))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undefined metrics are None."""
        return _without_nan(asdict(self))


def evaluate_scores(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.int8],
    labels: Sequence[str],
    protocol: Protocol,
    thresholds: Thresholds | None = None,
) -> Metrics:
    """Every metric of one evaluation.

    Args:
        probabilities: (N, C) float32 or float64 in [0, 1]. Lower precision is rejected: bf16 scores give wrong ranks.
        targets: (N, C) with 1 present, 0 absent, -1 unknown; unknown cells are excluded from every metric.
        labels: the C label keys.
        protocol: definition of AP, threshold, top-k.
        thresholds: per-label thresholds tuned on val; if None, the protocol's single threshold.

    Raises:
        UserError: no label has a positive, so there is nothing to measure.
        ValueError: arrays of the wrong shape, type or range (a bug in the caller).
    """
    check_scores(probabilities, targets, len(labels))
    if not (targets == 1).any():
        raise UserError(
            f"none of the {len(targets)} images has a positive label: there is nothing to evaluate; check the split"
        )
    thresholds = thresholds or Thresholds.fixed(protocol.threshold, len(labels))
    average_precisions = class_average_precisions(probabilities, targets, protocol)
    decisions = probabilities >= thresholds.values
    macro, micro = _auroc(probabilities, targets)
    known = targets >= 0
    return Metrics(
        protocol=protocol.name,
        protocol_hash=protocol.hash,
        images=len(targets),
        mAP=float(np.nanmean(average_precisions)),
        per_class={key: float(ap) for key, ap in zip(labels, average_precisions, strict=True) if not math.isnan(ap)},
        absent=tuple(key for key, ap in zip(labels, average_precisions, strict=True) if math.isnan(ap)),
        at_threshold=precision_recall(decisions, targets),
        at_top_k=precision_recall(top_k_decisions(probabilities, targets, protocol.top_k), targets),
        top_k=protocol.top_k,
        mA=mean_accuracy(decisions, targets),
        instances=instance_figures(decisions, targets),
        auroc_macro=macro,
        auroc_micro=micro,
        calibration_error=_calibration_error(probabilities[known], targets[known]),
        thresholds=thresholds.description,
        unknown_cells=int((~known).sum()),
    )


def class_average_precisions(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.int8], protocol: Protocol
) -> NDArray[np.float64]:
    """(C,) AP of each label over its known images, nan for a label without positives."""
    result = np.full(targets.shape[1], np.nan)
    for label in range(targets.shape[1]):
        known = targets[:, label] >= 0
        if known.any():
            result[label] = average_precision(
                probabilities[known, label], targets[known, label] == 1, form=protocol.average_precision
            )[0]
    return result


def branch_title(branch: str) -> str:
    """How tables call a branch."""
    return "prediction" if branch == "both" else branch


def check_scores(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.int8], label_count: int) -> None:
    """Reject arrays that would give meaningless metrics."""
    if probabilities.dtype not in (np.float32, np.float64):
        raise ValueError(f"probabilities must be float32 or float64, not {probabilities.dtype}")
    if probabilities.shape != targets.shape or targets.ndim != 2 or targets.shape[1] != label_count:
        raise ValueError(f"probabilities {probabilities.shape}, targets {targets.shape}, {label_count} labels")
    if not len(targets):
        raise ValueError("no images to evaluate")
    if not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError("probabilities must be finite and within [0, 1]")
    if not np.isin(targets, (-1, 0, 1)).all():
        raise ValueError("targets must be 1, 0 or -1")


def _auroc(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.int8]) -> tuple[float, float]:
    """Macro (mean over labels with both kinds) and micro area under the ROC curve."""
    known = targets >= 0
    areas = [
        _area(probabilities[known[:, label], label], targets[known[:, label], label])
        for label in range(targets.shape[1])
    ]
    defined = [area for area in areas if not math.isnan(area)]
    macro = float(np.mean(defined)) if defined else float("nan")
    return macro, _area(probabilities[known], targets[known])


def _area(scores: NDArray[np.floating[Any]], truth: NDArray[np.int8]) -> float:
    """Area under the ROC curve of (K,) cells: the Mann-Whitney U statistic of the positives, as a share of its largest
    value; NaN unless there are positives and negatives. (scikit-learn takes ten times as long for a label.)
    """
    positives = int((truth == 1).sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # equal scores share the mean of their ranks
    u = ranks[places][truth == 1].sum() - positives * (positives + 1) / 2
    return float(u / (positives * negatives))


def _calibration_error(probabilities: NDArray[np.floating[Any]], truth: NDArray[np.int8]) -> float:
    """Expected calibration error of (K,) cells: mean |probability - frequency| over equal bins, weighted by size."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    claimed = np.bincount(bins, weights=probabilities, minlength=CALIBRATION_BINS)
    seen = np.bincount(bins, weights=truth, minlength=CALIBRATION_BINS)
    return float(np.abs(claimed - seen).sum() / len(truth))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
