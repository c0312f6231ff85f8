"""Evaluates a trained run on a split."""

from typing import Literal

import torch

from sspa.stage2_training.compute.precision import Precision
from sspa.stage2_training.evaluation.bootstrap import Interval, map_interval
from sspa.stage2_training.evaluation.metrics import Metrics
from sspa.stage2_training.evaluation.thresholds import ThresholdKind, choose_thresholds
from sspa.stage2_training.features.inputs import Inputs
from sspa.stage2_training.inference.loading import load_recognizer, rebind
from sspa.stage2_training.inference.scoring import metrics_by_branch, score
from sspa.stage2_training.runs.inputs import ScoredInputs
from sspa.stage2_training.runs.run_folder import RunFolder


def evaluate_run(
    folder: RunFolder,
    scored: ScoredInputs,
    split: str | None,
    device: torch.device,
    thresholds: ThresholdKind | Literal["own"] = "fixed",
    resamples: int = 0,
    precision: Precision | Literal["auto"] = "auto",
) -> tuple[str, dict[str, Metrics], dict[str, Interval]]:
    """The metrics of each branch on one split, with confidence intervals of mAP.

    Without a `split`, it is test, or val if the data has no test; its name comes first of what is returned.
    Thresholds "one" and "each" are tuned on the data's val split, per branch; "own" are those that the run tuned for
    its prediction, the same for every branch. Intervals come from
    `resamples` bootstrap samples of the images; 0 gives none. With `precision` auto, the image tower computes as it
    did when the run scored itself, which reproduces the run's own metrics.

    Raises:
        UserError: there is no such split, or the run's head cannot take new labels.
    """
    config, dataset = scored.config, scored.dataset
    recognizer, _, _ = load_recognizer(folder, device, None if precision == "auto" else precision)
    if scored.rebound:
        rebind(recognizer, scored.knowledge)
    inputs = Inputs(config, dataset, recognizer.backbone, device)
    inputs.belong_to(folder.path)
    wanted = inputs.split(split or dataset.measured)
    own = folder.tuned_for(dataset.labels.keys) if thresholds == "own" else None
    tuned = None
    if thresholds == "one" or thresholds == "each":
        val = inputs.split("val")
        inputs.keep_features(([val], config.evaluation.views))
        tuned = {
            branch: choose_thresholds(thresholds, dataset.protocol.threshold, values, val.targets)
            for branch, values in score(recognizer, inputs.scoring(val)).items()
        }
    inputs.keep_features(([wanted], config.evaluation.views))
    probabilities = score(recognizer, inputs.scoring(wanted))
    if own is not None:
        tuned = dict.fromkeys(probabilities, own)
    metrics = metrics_by_branch(probabilities, wanted, dataset, tuned)
    if not resamples:
        return wanted.name, metrics, {}
    intervals = {
        branch: map_interval(values, wanted.targets, dataset.protocol, resamples)
        for branch, values in probabilities.items()
    }
    return wanted.name, metrics, intervals
