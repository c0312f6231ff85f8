"""Predictions for every labelled image, by models that did not see it in training.

Legend: N images, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.shared.knowledge import read_knowledge
from sspa.shared.label_sets import Label
from sspa.shared.terminal import say
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.runs.inputs import own_dataset
from sspa.stage2_training.runs.resuming import check_same_inputs, folder_to_resume
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions
from sspa.stage2_training.training.run import run


@dataclass(frozen=True)
class OutOfFold:
    """What the folds' models say.

    Attributes:
        labels: C, in the order of the columns.
        paths: N image files.
        probabilities, targets: (N, C).
        fold: (N,), the place in `folders` of the model that did not see the image.
        folders: the folds' runs.
    """

    labels: tuple[Label, ...]
    paths: list[Path]
    probabilities: NDArray[np.float32]
    targets: NDArray[np.int8]
    fold: NDArray[np.int64]
    folders: list[RunFolder]


def out_of_fold(configs: Sequence[RunConfig], out: Path, device: torch.device) -> OutOfFold:
    """Train one model per fold, each scored on the images that were kept from it.

    Finished folds in `out` are kept, and stopped ones are resumed.

    Args:
        configs: one for each fold, which differ in `data.fold` only.
        out: the folder of the folds' runs.

    Raises:
        UserError: anything that `run` raises, or a fold in `out` is of another configuration or other data.
    """
    folders, paths, parts, targets = [], [], [], []
    for number, config in enumerate(configs, start=1):
        path = out / f"fold-{number}"
        say(f"fold {number} of {len(configs)}")
        folder = folder_to_resume(path, config)
        dataset = own_dataset(config)
        if folder is None or not folder.finished:
            folder = run(config, path, device, resume=folder is not None).folder
        else:
            knowledge = read_knowledge(config.knowledge).for_labels(dataset.labels.keys)
            check_same_inputs(folder, dataset, knowledge, folder.record().processes)
        probabilities, _ = read_predictions(folder)
        held_out = dataset.splits[dataset.measured]
        folders.append(folder)
        paths += list(held_out.paths)
        parts.append(probabilities["both"])
        targets.append(held_out.targets)
    return OutOfFold(
        labels=dataset.labels.labels,
        paths=paths,
        probabilities=np.concatenate(parts),
        targets=np.concatenate(targets),
        fold=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        folders=folders,
    )
