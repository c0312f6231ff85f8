"""Evaluates a trained run on a split."""

from pathlib import Path
from typing import Literal

import torch

from sspa.shared.errors import UserError
from sspa.shared.knowledge import read_knowledge
from sspa.stage2_training.data.dataset import load_dataset
from sspa.stage2_training.evaluation.bootstrap import Interval, map_interval
from sspa.stage2_training.evaluation.metrics import Metrics
from sspa.stage2_training.evaluation.thresholds import ThresholdKind, choose_thresholds
from sspa.stage2_training.features.inputs import Inputs, own_dataset
from sspa.stage2_training.inference.loading import load_recognizer, rebind
from sspa.stage2_training.inference.scoring import metrics_by_branch, score
from sspa.stage2_training.runs.run_folder import open_run_folder


def evaluate_run(
    run_path: Path,
    data: str | None,
    root: Path | None,
    split: str | None,
    knowledge_file: Path | None,
    device: torch.device,
    thresholds: ThresholdKind = "fixed",
    resamples: int = 0,
    precision: Literal["auto", "float32", "bf16"] = "auto",
    leave_out_unreadable: bool | None = None,
) -> tuple[str, dict[str, Metrics], dict[str, Interval]]:
    """The metrics of each branch on one split of the run's own or other data, with confidence intervals of mAP.

    Without a `split`, it is test, or val if the data has no test; its name comes first of what is returned.
    Thresholds other than the protocol's fixed one are tuned on the data's val split, per branch. Intervals come from
    `resamples` bootstrap samples of the images; 0 gives none. With `precision` auto, the image tower computes as it
    did when the run scored itself, which reproduces the run's own metrics. `leave_out_unreadable` overrides the run's
    own choice about images that are missing or cannot be read; what is left out is said.

    Raises:
        UserError: the data has labels that the run does not know and no knowledge about them was given, or
            the run's head cannot take new labels.
    """
    folder = open_run_folder(run_path)
    recognizer, config, knowledge = load_recognizer(folder, device, None if precision == "auto" else precision)
    if leave_out_unreadable is not None:
        unreadable: Literal["stop", "leave-out"] = "leave-out" if leave_out_unreadable else "stop"
        config = config.model_copy(update={"data": config.data.model_copy(update={"unreadable": unreadable})})
    if data is None or data == config.data.name:
        dataset = own_dataset(config, root)
    else:
        leave_out = config.data.unreadable == "leave-out"
        dataset = load_dataset(data, root, seed=config.training.seed, leave_out_unreadable=leave_out)
    keys = dataset.labels.keys
    if knowledge_file is not None:
        rebind(recognizer, read_knowledge(knowledge_file).for_labels(keys))
    elif own_keys := [label.key for label in knowledge.labels]:
        if missing := [key for key in keys if key not in own_keys]:
            raise UserError(
                f"{data or config.data.name}: has labels that the run does not know ({', '.join(missing[:5])}); give "
                "--knowledge FILE about its labels, as sspa-knowledge generate --labels FILE writes it"
            )
        if own_keys != list(keys):
            rebind(recognizer, knowledge.for_labels(keys))
    inputs = Inputs(config, dataset, recognizer.backbone, device)
    wanted = inputs.split(split or dataset.measured)
    tuned = None
    if thresholds != "fixed":
        val = inputs.split("val")
        inputs.keep_features(([val], config.evaluation.views))
        tuned = {
            branch: choose_thresholds(thresholds, dataset.protocol.threshold, values, val.targets)
            for branch, values in score(recognizer, inputs.scoring(val)).items()
        }
    inputs.keep_features(([wanted], config.evaluation.views))
    probabilities = score(recognizer, inputs.scoring(wanted))
    metrics = metrics_by_branch(probabilities, wanted, dataset, tuned)
    if not resamples:
        return wanted.name, metrics, {}
    intervals = {
        branch: map_interval(values, wanted.targets, dataset.protocol, resamples)
        for branch, values in probabilities.items()
    }
    return wanted.name, metrics, intervals
