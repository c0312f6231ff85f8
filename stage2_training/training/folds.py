"""The figures of several models that each missed a part of the images: their predictions put together (ours)."""

from collections.abc import Sequence

import numpy as np

from sspa.stage2_training.data.dataset import Dataset
from sspa.stage2_training.evaluation.bootstrap import map_interval
from sspa.stage2_training.evaluation.metrics import evaluate_scores
from sspa.stage2_training.evaluation.thresholds import Thresholds, tune_each
from sspa.stage2_training.runs.records import FoldsRecord
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions


def measured_by_folds(folders: Sequence[RunFolder], dataset: Dataset) -> tuple[FoldsRecord, Thresholds]:
    """The metrics of all folds' images at once, by the data set's protocol, and thresholds that suit these predictions.

    Put together, a label needs positives in all folds at once only, and each image counts once. The models' scales
    differ a little, which costs mAP a little.
    """
    found = [read_predictions(folder) for folder in folders]
    targets = np.concatenate([of_fold for _, of_fold in found])
    probabilities = {branch: np.concatenate([by_branch[branch] for by_branch, _ in found]) for branch in found[0][0]}
    interval = map_interval(probabilities["both"], targets, dataset.protocol)
    record = FoldsRecord(
        count=len(folders),
        images=len(targets),
        metrics={
            branch: evaluate_scores(values, targets, dataset.labels.keys, dataset.protocol)
            for branch, values in probabilities.items()
        },
        interval=(interval.low, interval.high),
    )
    tuned = tune_each(probabilities["both"], targets, f"{len(targets)} images by {len(folders)} folds")
    return record, tuned
