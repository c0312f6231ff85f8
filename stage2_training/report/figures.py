"""A run's headline metrics over bootstrap resamples of its test images.

Legend: N images, C labels, R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.evaluation.bootstrap import Interval, resampled_map, resampling_weights
from sspa.stage2_training.evaluation.decisions import (
    instance_figures,
    mean_accuracy,
    precision_recall,
    top_k_decisions,
)
from sspa.stage2_training.evaluation.metrics import Metrics
from sspa.stage2_training.evaluation.protocol import Protocol

Floats = NDArray[np.floating[Any]]

RESAMPLES = 300
LEVEL = 0.95


def headline_names(protocol: Protocol) -> tuple[str, ...]:
    """The metrics usually quoted for this data, and those reported for every run."""
    return tuple(dict.fromkeys((*protocol.headline, "mAP", "CF1", "OF1")))


def resampled_figures(
    probabilities: Floats, targets: NDArray[np.int8], protocol: Protocol, resamples: int = RESAMPLES
) -> dict[str, Floats]:
    """(R,) values of each headline metric. Resample r has the same images for every run with N of them, so that
    differences of two runs on the same images are paired. Decisions use the protocol's threshold."""
    weights = resampling_weights(len(targets), resamples)
    decisions = probabilities >= protocol.threshold
    highest = top_k_decisions(probabilities, targets, protocol.top_k)
    of_decisions = [name for name in headline_names(protocol) if name != "mAP"]
    drawn = []
    for counts in weights:
        images = np.repeat(np.arange(len(targets)), counts)
        found = _figures(of_decisions, decisions[images], highest[images], targets[images], protocol.top_k)
        drawn.append([found[name] for name in of_decisions])
    columns: dict[str, Floats] = dict(zip(of_decisions, np.array(drawn).T, strict=True))
    columns["mAP"] = resampled_map(probabilities, targets, protocol, weights)
    return {name: columns[name] for name in headline_names(protocol)}


def intervals_of(metrics: Metrics, drawn: Mapping[str, Floats]) -> dict[str, Interval]:
    """The interval of each resampled metric around its value.

    Args:
        metrics: one branch of result.json.
        drawn: of `resampled_figures`.
    """
    tail = (1 - LEVEL) / 2
    intervals = {}
    for name, values in drawn.items():
        low, high = np.nanquantile(values, [tail, 1 - tail])
        intervals[name] = Interval(metrics.figure(name), float(low), float(high), LEVEL, len(values))
    return intervals


def _figures(
    wanted: Sequence[str],
    decisions: NDArray[np.bool_],
    highest: NDArray[np.bool_],
    targets: NDArray[np.int8],
    top_k: int,
) -> dict[str, float]:
    found = dict(vars(precision_recall(decisions, targets)))
    if any("@" in name for name in wanted):
        found |= {f"{name}@{top_k}": value for name, value in vars(precision_recall(highest, targets)).items()}
    if "mA" in wanted:
        found |= {"mA": mean_accuracy(decisions, targets), **vars(instance_figures(decisions, targets))}
    return {name: found[name] for name in wanted}
