"""A model's probabilities for a split, and the metrics of each branch.

Legend: N images, C labels.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.stage2_training.compute.processes import Processes
from sspa.stage2_training.data.dataset import Dataset, Split
from sspa.stage2_training.evaluation.gathering import gather_by_index
from sspa.stage2_training.evaluation.metrics import Metrics, Probabilities, evaluate_scores
from sspa.stage2_training.evaluation.thresholds import Thresholds
from sspa.stage2_training.features.batches import Batches
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.model.views import mean_over_views


def score(
    recognizer: Recognizer, views: Sequence[Batches], done: Callable[[int], None] = lambda count: None
) -> Probabilities:
    """The probabilities of one split: by branch, averaged over its views.

    Args:
        views: the same split under each view, in the split's order.
        done: called with the number of images in each batch.
    """
    return _score(recognizer, views, done)[1]


def score_together(
    recognizer: Recognizer,
    views: Sequence[Batches],
    total: int,
    processes: Processes,
    done: Callable[[int], None] = lambda count: None,
) -> Probabilities:
    """`score` for `total` images split over the processes; every process gets all the scores."""
    parts = processes.of_each(_score(recognizer, views, done))
    return {
        branch: gather_by_index([(indices, of_one[branch]) for indices, of_one in parts], total)
        for branch in parts[0][1]
    }


@torch.inference_mode()
def _score(
    recognizer: Recognizer, views: Sequence[Batches], done: Callable[[int], None]
) -> tuple[NDArray[np.int64], Probabilities]:
    """The images' indices in the split, and their probabilities."""
    recognizer.eval()
    labels = recognizer.encode_labels()
    by_view: list[dict[str, torch.Tensor]] = []
    places = np.zeros(0, dtype=np.int64)
    for view in views:
        parts: dict[str, list[torch.Tensor]] = {}
        seen = []
        for inputs, _, indices in view.epoch(0):
            for branch, values in recognizer(inputs, labels).branches().items():
                parts.setdefault(branch, []).append(values.cpu())
            seen.append(indices.numpy())
            done(len(indices))
        places = np.concatenate(seen)
        by_view.append({branch: torch.cat(tensors) for branch, tensors in parts.items()})
    mixed = recognizer.head.mixture.added_to(mean_over_views(by_view))
    return places, {branch: values.numpy() for branch, values in mixed.items()}


def metrics_by_branch(
    probabilities: Probabilities,
    split: Split,
    dataset: Dataset,
    thresholds: Mapping[str, Thresholds] | None = None,
) -> dict[str, Metrics]:
    """The metrics of each branch on one split, under the data set's protocol and, by default, its threshold."""
    return {
        branch: evaluate_scores(
            values, split.targets, dataset.labels.keys, dataset.protocol, thresholds[branch] if thresholds else None
        )
        for branch, values in probabilities.items()
    }
