"""Self-training (ours): what a teacher, a finished run, is sure of stands for the unknown marks of train.

The teacher may be a run that this one makes first, on what is known. What it says is written into the run's folder, so
that resuming needs no teacher. Labels that are kept from training (`data.unseen`) are not taught.

Legend: N training images, C labels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.shared.file_digests import file_digests
from sspa.shared.knowledge import Knowledge
from sspa.shared.terminal import progress, say
from sspa.stage2_training.compute.processes import Processes
from sspa.stage2_training.config.resolving import teacher_config
from sspa.stage2_training.config.run_config import OWN_TEACHER, RunConfig
from sspa.stage2_training.data.dataset import Dataset, rows_of_split, with_known_marks
from sspa.stage2_training.features.inputs import Inputs
from sspa.stage2_training.inference.loading import make_recognizer
from sspa.stage2_training.inference.scoring import score_together
from sspa.stage2_training.runs.inputs import RunInputs
from sspa.stage2_training.runs.records import TaughtRecord
from sspa.stage2_training.runs.run_folder import WEIGHTS, RunFolder
from sspa.stage2_training.runs.stored_tensors import read_weights
from sspa.stage2_training.runs.taught import TaughtMarks, read_taught, write_taught

_TEACHER, _TAUGHT = "teacher", "taught.parquet"


def sure_marks(probabilities: NDArray[np.float32], sure: float) -> NDArray[np.int8]:
    """1 where a probability is above `sure`, 0 where it is below 1 - `sure`, -1 elsewhere."""
    return np.select([probabilities > sure, probabilities < 1 - sure], [1, 0], -1).astype(np.int8)


def with_taught_marks(dataset: Dataset, taught: TaughtMarks, repeat: int) -> Dataset:
    """The data set, with a teacher's marks of train where its own are unknown.

    Training images of which something was known before are there `repeat` times, those of which nothing is known now
    are left out.
    """
    train = dataset.split("train")
    targets = np.where(train.targets >= 0, train.targets, taught.marks)
    learned = with_known_marks(replace(dataset, splits={**dataset.splits, "train": replace(train, targets=targets)}))
    if repeat == 1:
        return learned
    before, after = (np.flatnonzero((marks >= 0).any(axis=1)) for marks in (train.targets, targets))
    was_known = np.isin(after, before)
    rows = np.repeat(np.arange(len(was_known)), np.where(was_known, repeat, 1))
    return replace(learned, splits={**learned.splits, "train": rows_of_split(learned.split("train"), rows)})


@dataclass(frozen=True)
class _Teacher:
    """A finished run, of which only the first process needs the folder."""

    folder: RunFolder
    config: RunConfig
    knowledge: Knowledge


def taught_marks(
    folder: RunFolder,
    config: RunConfig,
    inputs: RunInputs,
    device: torch.device,
    processes: Processes,
    make: Callable[[RunConfig, Path], None],
) -> TaughtMarks:
    """What the teacher of the run in `folder` is sure of; kept there from the first time on.

    All processes take part; the first reads and writes. Torch's random state is used.

    Args:
        config, inputs: the run's.
        make: makes a run in a folder, or finishes it.

    Raises:
        UserError: the teacher cannot be made or read.
    """
    file, train, keys = folder.file(_TAUGHT), inputs.dataset.split("train"), inputs.dataset.labels.keys
    if not processes.first(file.exists):
        teacher = _found(folder, config, inputs, processes, make)
        taught = _asked(teacher, config, inputs.dataset, device, processes)
        processes.first(lambda: write_taught(taught, train.ids, keys, file))
    taught = processes.first(lambda: read_taught(file, train.ids, keys))
    about = taught.about
    say(
        f"of what is unknown in {len(train):,} training images, the teacher is sure of {about.present:,} labels that "
        f"are present and {about.absent:,} that are absent, in {about.images:,} of them"
    )
    return taught


def may_be_taught(dataset: Dataset) -> NDArray[np.bool_]:
    """(N, C): the unknown marks of train, without those of labels that are kept from training."""
    seen = np.array([key not in dataset.unseen for key in dataset.labels.keys])
    unknown: NDArray[np.bool_] = (dataset.split("train").targets < 0) & seen
    return unknown


def _found(
    folder: RunFolder,
    config: RunConfig,
    inputs: RunInputs,
    processes: Processes,
    make: Callable[[RunConfig, Path], None],
) -> _Teacher:
    """The teacher, made if it is the run's own and not there yet."""
    if (name := config.teacher.run) != OWN_TEACHER:
        named = RunFolder(Path(str(name)))
        return processes.everywhere(lambda: _Teacher(named, named.config(), named.knowledge()))
    own, configured = RunFolder(folder.file(_TEACHER)), teacher_config(config)
    if not processes.first(lambda: own.finished):
        say(f"first the teacher, in {own.path}")
        make(configured, own.path)
        say(f"now the run itself, in {folder.path}")
    return _Teacher(own, configured, inputs.knowledge)


def _asked(
    teacher: _Teacher, config: RunConfig, dataset: Dataset, device: torch.device, processes: Processes
) -> TaughtMarks:
    targets, known_to = dataset.split("train").targets, [label.key for label in teacher.knowledge.labels]
    if lacking := [key for key in dataset.labels.keys if key not in known_to]:
        say(f"{teacher.folder.path}: does not know {', '.join(lacking)}; unknown marks of these labels stay unknown")
    unknown = may_be_taught(dataset)
    unknown[:, [place for place, key in enumerate(dataset.labels.keys) if key in lacking]] = False
    marks = np.full(targets.shape, -1, dtype=np.int8)
    rows = np.flatnonzero(unknown.any(axis=1))
    if len(rows):
        said = sure_marks(_probabilities(teacher, config, dataset, rows, device, processes), config.teacher.sure)
        for place, key in enumerate(dataset.labels.keys):
            if key not in lacking:
                marks[rows, place] = said[:, known_to.index(key)]
        marks[~unknown] = -1
    about = TaughtRecord(
        teacher=str(config.teacher.run),
        weights=processes.first(lambda: file_digests([teacher.folder.file(WEIGHTS)], "weights"))[0],
        images=int((marks >= 0).any(axis=1).sum()),
        present=int((marks == 1).sum()),
        absent=int((marks == 0).sum()),
    )
    return TaughtMarks(marks, about)


def _probabilities(
    teacher: _Teacher,
    config: RunConfig,
    dataset: Dataset,
    rows: NDArray[np.int64],
    device: torch.device,
    processes: Processes,
) -> NDArray[np.float32]:
    """(len(rows), the teacher's labels): of training images, under the run's training views, which it needs anyway."""
    recognizer = processes.everywhere(lambda: make_recognizer(teacher.config, teacher.knowledge, device))
    processes.first(lambda: read_weights(teacher.folder, recognizer.trained_modules()))
    processes.same_everywhere(recognizer.trained_modules())
    # The images are read as the run itself reads them.
    evaluation = teacher.config.evaluation.model_copy(update={"views": config.training.views})
    own = teacher.config.model_copy(update={"data": config.data, "evaluation": evaluation})
    inputs = Inputs(own, dataset, recognizer.backbone, device, processes)
    asked = rows_of_split(dataset.split("train"), rows)
    inputs.keep_features(([asked], config.training.views))
    views = inputs.scoring(asked, unreadable="blank")
    with progress("asking the teacher", len(views) * len(rows) // processes.world, "images") as bar:
        return score_together(recognizer, views, len(rows), processes, bar.advance)["both"]
