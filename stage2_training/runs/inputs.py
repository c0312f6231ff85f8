"""What a run is trained with: its data, and what is known about their labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sspa.shared.errors import UserError
from sspa.shared.knowledge import Knowledge, read_knowledge
from sspa.stage2_training.config.run_config import OWN_TEACHER, RunConfig
from sspa.stage2_training.data.dataset import Dataset, load_dataset
from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.runs.run_folder import RunFolder, open_run_folder


@dataclass(frozen=True)
class RunInputs:
    """A data set, and the knowledge about its labels, in their order."""

    dataset: Dataset
    knowledge: Knowledge


def open_inputs(config: RunConfig) -> RunInputs:
    """The inputs of a configuration.

    Raises:
        UserError: one of them is missing or invalid, the knowledge lacks a label, or the teacher cannot be one.
    """
    dataset = own_dataset(config)
    _check_teacher(config, dataset)
    return RunInputs(dataset, read_knowledge(config.knowledge).for_labels(dataset.labels.keys))


def _check_teacher(config: RunConfig, dataset: Dataset) -> None:
    if (name := config.teacher.run) in (None, OWN_TEACHER):
        return
    teacher = open_run_folder(Path(str(name)))
    teacher.check_loadable()
    if not set(teacher.record().labels) & set(dataset.labels.keys):
        raise UserError(f"{name}: knows none of the labels {', '.join(dataset.labels.keys[:5])}; take another teacher")
    _check_unseen_by(teacher, dataset)


def _check_unseen_by(teacher: RunFolder, dataset: Dataset) -> None:
    """Reject a teacher that was trained on the images that measure its pupil."""
    about = teacher.record()
    if about.refit is None:
        return
    # A package has no ids.
    tested = teacher.test_ids() if teacher.file("test_ids.json").exists() else []
    measuring = {*dataset.split("val").ids, *dataset.split(dataset.measured).ids}
    if dataset.content_hash == about.data.hash or not measuring.isdisjoint(tested):
        raise UserError(
            f"{teacher.path}: was trained on images that the new run is measured on, so that its figures would say "
            f"nothing; name {about.refit.of} as the teacher, and make a refit of the new run"
        )


def check_held_out(folder: RunFolder, dataset: Dataset, *splits: str) -> None:
    """Reject scoring a refit on what it was trained on.

    Raises:
        UserError: these splits of the data set are what the run in `folder` was trained on.
    """
    about = folder.record()
    refit = about.refit
    if refit is None or dataset.content_hash != about.data.hash:
        return
    if seen := [name for name in splits if name in refit.splits]:
        raise UserError(
            f"{folder.path}: was trained on {seen[0]} too, so that figures of it would say nothing; evaluate "
            f"{refit.of}, or other images (--data)"
        )


@dataclass(frozen=True)
class ScoredInputs:
    """A data set that a trained run is scored on, and the knowledge about its labels, in their order.

    Attributes:
        config: of the run, with what was said otherwise about unreadable images.
        rebound: whether these are other labels than the model is bound to when it is loaded.
    """

    config: RunConfig
    dataset: Dataset
    knowledge: Knowledge
    rebound: bool


def scored_inputs(
    folder: RunFolder,
    data: str | None = None,
    root: Path | None = None,
    knowledge_file: Path | None = None,
    leave_out_unreadable: bool | None = None,
    protocol: str | None = None,
) -> ScoredInputs:
    """What a trained run is to be scored on: its own data by default.

    Args:
        data, root: another data set or manifest, and its folder.
        knowledge_file: about its labels, if the run does not know them.
        leave_out_unreadable: overrides the run's own choice about images that are missing or cannot be read.
        protocol: a name or a file, instead of the run's own or the other data set's first.

    Raises:
        UserError: the data is missing or invalid, or has labels that neither the run nor the file knows.
    """
    config, own = folder.config(), folder.knowledge()
    if leave_out_unreadable is not None:
        unreadable: Literal["stop", "leave-out"] = "leave-out" if leave_out_unreadable else "stop"
        config = config.model_copy(update={"data": config.data.model_copy(update={"unreadable": unreadable})})
    if data in (None, config.data.name):
        dataset = own_dataset(config, root, protocol or folder.record().protocol.own)
    else:
        leave_out = config.data.unreadable == "leave-out"
        dataset = load_dataset(data, root, protocol, seed=config.training.seed, leave_out_unreadable=leave_out)
    keys = dataset.labels.keys
    if knowledge_file is not None:
        return ScoredInputs(config, dataset, read_knowledge(knowledge_file).for_labels(keys), True)
    own_keys = [label.key for label in own.labels]
    if missing := [key for key in keys if key not in own_keys]:
        raise UserError(
            f"{data or config.data.name}: has labels that the run does not know ({', '.join(missing[:5])}); give "
            "--knowledge FILE about its labels, as sspa-knowledge generate --labels FILE writes it"
        )
    return ScoredInputs(config, dataset, own.for_labels(keys), own_keys != list(keys))


def dataset_of(folder: RunFolder) -> Dataset:
    """The data set of a run, under the rules that it was measured by, also where a file of one's own is gone.

    Raises:
        UserError: it is missing or invalid.
    """
    return own_dataset(folder.config(), protocol=folder.record().protocol.own)


def own_dataset(config: RunConfig, root: Path | None = None, protocol: str | Protocol | None = None) -> Dataset:
    """The data set of a configuration, reduced as configured, under its own root and protocol or others.

    With `data.unreadable=leave-out`, images that are missing or cannot be decoded are not in it.

    Raises:
        UserError: it is missing or invalid.
    """
    data = config.data
    return load_dataset(
        data.name,
        root or data.root,
        protocol or data.protocol,
        data.val_fraction,
        config.training.seed,
        data.subset,
        data.held_out,
        data.unreadable == "leave-out",
    )
