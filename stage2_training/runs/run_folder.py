"""The run folder, the output of a run: what was done, with what, and how well. Its tensors: `stored_tensors`."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sspa.shared.errors import UserError
from sspa.shared.files import replacing, replacing_folder
from sspa.shared.holding import held
from sspa.shared.json_files import read_json
from sspa.shared.knowledge import Knowledge, read_knowledge
from sspa.shared.temporary_folders import delete_abandoned
from sspa.stage2_training.backbones.backbone_names import check_name
from sspa.stage2_training.compute.environment import environment
from sspa.stage2_training.config.resolving import stored_config
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.data.dataset import Dataset
from sspa.stage2_training.evaluation.thresholds import Thresholds
from sspa.stage2_training.runs.records import (
    FORMAT_VERSION,
    DataRecord,
    DescriptionsRecord,
    EnvironmentRecord,
    EpochRecord,
    FormatRecord,
    KnowledgeRecord,
    PreprocessingRecord,
    ProtocolRecord,
    RefitRecord,
    ResultRecord,
    RunRecord,
    ThresholdsRecord,
    read_epochs,
    read_record,
)

if TYPE_CHECKING:
    import torch

    from sspa.stage2_training.backbones.contract import Backbone

WEIGHTS = "weights.safetensors"
# Stands for the folder's own path in a packaged folder, wherever it is moved: "local-dir:{folder}/backbone".
OWN_FOLDER = "{folder}"


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run's files.

    run.json: version, environment, hashes, label order. config.json: the resolved configuration.
    knowledge.parquet: the knowledge that was used. metrics.jsonl: one line per epoch, the same however often the
    run was interrupted. descriptions.json: which descriptions KAP uses, with their scores, where the head reads any.
    times.jsonl: each epoch's duration and number of processes. checkpoints/: what an unfinished run resumes from.
    weights.safetensors: the averaged weights of the best epoch. result.json: test metrics by branch.
    predictions.safetensors: probabilities and targets of the test split. thresholds.json: per label, tuned on
    val. report.html: a readable summary.
    """

    path: Path

    def file(self, name: str) -> Path:
        """The path of one of the run's files."""
        return self.path / name

    def write_json(self, name: str, content: Any) -> None:
        """Write one file atomically."""
        with replacing(self.file(name)) as beside:
            beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def record(self) -> RunRecord:
        """What was known before training.

        Raises:
            UserError: as in every method that reads, the file is missing or damaged.
        """
        return read_record(self.file("run.json"), RunRecord)

    def result(self) -> ResultRecord:
        """The results."""
        return read_record(self.file("result.json"), ResultRecord)

    def thresholds(self) -> ThresholdsRecord:
        """The thresholds tuned on val or by folds, per label."""
        return read_record(self.file("thresholds.json"), ThresholdsRecord)

    def tuned_for(self, keys: Sequence[str]) -> Thresholds:
        """The tuned thresholds of these labels, (C,).

        Raises:
            UserError: one of them has none.
        """
        tuned = self.thresholds()
        if missing := [key for key in keys if key not in tuned.values]:
            if missing[0] in self.record().labels:
                raise UserError(f"{self.path}: thresholds.json has none for {missing[0]!r}; it is damaged")
            raise UserError(
                f"{self.path}: has no tuned threshold for {missing[0]!r}, which it was not trained on; give one number "
                "for all labels"
            )
        return Thresholds(np.array([tuned.values[key] for key in keys]), tuned.description)

    def write_thresholds(self, thresholds: Thresholds, keys: Sequence[str]) -> None:
        """Write thresholds.json, of the labels in this order."""
        values = dict(zip(keys, thresholds.values.tolist(), strict=True))
        self.write_json("thresholds.json", {"description": thresholds.description, "values": values})

    def epochs(self) -> list[EpochRecord]:
        """The lines of metrics.jsonl."""
        return read_epochs(self.file("metrics.jsonl"))

    def test_ids(self) -> list[str]:
        """The ids of the test images, in the order of the predictions."""
        ids = self.read_json("test_ids.json")
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise UserError(f"{self.file('test_ids.json')}: is not a list of ids; it is damaged")
        return ids

    def read_json(self, name: str) -> Any:
        """A JSON file of the run that has no record type."""
        path = self.file(name)
        try:
            return read_json(path)
        except FileNotFoundError as error:
            raise UserError(f"{self.path}: is not a finished run ({name} is missing)") from error

    def append(self, name: str, line: dict[str, Any]) -> int:
        """Append one line to a JSON lines file; returns its new length in bytes.

        Raises:
            UserError: the disk is full, or the file cannot be written.
        """
        try:
            with self.file(name).open("ab") as file:
                file.write((json.dumps(line) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
                return file.tell()
        except OSError as error:
            raise UserError(
                f"{self.file(name)}: cannot be written ({error.strerror}); fix that, then resume with --resume"
            ) from error

    def cut_metrics(self, length: int) -> None:
        """Remove the lines of metrics.jsonl that were written after a checkpoint."""
        try:
            with self.file("metrics.jsonl").open("ab") as file:
                file.truncate(length)
        except OSError as error:
            raise UserError(f"{self.file('metrics.jsonl')}: cannot be written ({error.strerror})") from error

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return self.file("result.json").is_file()

    def config(self) -> RunConfig:
        """The run's configuration, as it was resolved; `OWN_FOLDER` in the backbone's names stands for this folder."""
        tree = self.read_json("config.json")
        backbone = tree.get("backbone") if isinstance(tree, dict) else None
        if not isinstance(backbone, dict):
            raise UserError(f"{self.file('config.json')}: does not hold the configuration of a run; it is damaged")
        for key in ("name", "weights"):
            if isinstance(backbone.get(key), str):
                backbone[key] = backbone[key].replace(OWN_FOLDER, str(self.path))
        try:
            config = stored_config(tree)
        except UserError as error:
            raise UserError(f"{self.file('config.json')}: {error}") from error
        weights = Path(config.backbone.weights or "").resolve()
        inside = weights.is_file() and weights.is_relative_to(self.path.resolve())
        if inside and weights.suffix != ".safetensors":
            raise UserError(
                f"{self.path}: brings the weights {weights.name}, and from a run folder only .safetensors files are "
                "read; convert them with `sspa-train backbone convert`, if you trust them, and change config.json"
            )
        return config

    def check_loadable(self) -> None:
        """Check what loading the model reads, without the libraries that do.

        Raises:
            UserError: a file is missing or damaged.
        """
        config = self.config()
        check_name(config.backbone.name, config.backbone.weights)
        self.knowledge()
        if not self.file(WEIGHTS).is_file():
            raise UserError(f"{self.path}: is not a finished run ({WEIGHTS} is missing)")

    def descriptions(self) -> DescriptionsRecord | None:
        """Which descriptions the head reads; None if it reads none, or the run is of a version that read all."""
        path = self.file("descriptions.json")
        if not path.is_file():
            return None
        record = read_record(path, DescriptionsRecord)
        if missing := [key for key in self.record().labels if key not in record.labels]:
            raise UserError(f"{path}: has no descriptions of {missing[0]!r}, which the run knows; it is damaged")
        return record

    def knowledge(self) -> Knowledge:
        """The knowledge the run was trained with, in the order of its labels."""
        return read_knowledge(self.file("knowledge.parquet")).for_labels(self.record().labels)


def check_free(path: Path | None) -> None:
    """Reject a folder that is not empty.

    Raises:
        UserError: `path` exists and is not an empty folder.
    """
    if path is None or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if (path / "run.json").is_file() and not RunFolder(path).finished:
        raise UserError(f"{path}: holds an unfinished run; resume it with --resume, or choose another --out")
    raise UserError(f"{path}: exists already; nothing in it was changed. Choose another folder with --out")


def create_run_folder(
    path: Path | None,
    config: RunConfig,
    dataset: Dataset,
    knowledge: Knowledge,
    backbone: "Backbone",
    device: "torch.device",
    processes: int = 1,
) -> RunFolder:
    """Create a new run folder with what is known before training; it appears complete or not at all.

    Args:
        path: where; if None, a free name under runs/.
        backbone: the run's own, which determines the preprocessing of images.
        device: the one it is trained on.
        processes: the number of training processes.

    Raises:
        UserError: `path` exists and is not an empty folder, or cannot be written.
    """
    path = path or _free_name(Path("runs"), f"{dataset.name}-{config.model.head}-seed{config.training.seed}")
    record = RunRecord(
        format=FORMAT_VERSION,
        labels=dataset.labels.keys,
        data=DataRecord(
            name=dataset.name,
            hash=dataset.content_hash,
            note=dataset.note,
            unseen=tuple(dataset.unseen),
            images={name: len(split) for name, split in dataset.splits.items()},
        ),
        protocol=ProtocolRecord.of(dataset.protocol),
        knowledge=KnowledgeRecord(file=str(knowledge.path), hash=knowledge.content_hash),
        seed=config.training.seed,
        device=str(device),
        processes=processes,
        environment=EnvironmentRecord(**environment(device)),
        preprocessing=PreprocessingRecord(size=backbone.image_size, mean=backbone.mean, std=backbone.std),
    )
    return _created(path, config, record, knowledge.path)


def create_refit_folder(
    path: Path,
    config: RunConfig,
    measured: RunFolder,
    refit: RefitRecord,
    device: "torch.device",
    processes: int,
) -> RunFolder:
    """As `create_run_folder`, for the run `measured` trained again.

    Raises:
        UserError: see there.
    """
    here = {"device": str(device), "processes": processes, "environment": EnvironmentRecord(**environment(device))}
    record = measured.record().model_copy(update={"refit": refit, **here})
    return _created(path, config, record, measured.file("knowledge.parquet"))


def _created(path: Path, config: RunConfig, record: RunRecord, knowledge: Path) -> RunFolder:
    check_free(path)
    with replacing_folder(path) as beside:
        folder = RunFolder(beside)
        folder.write_json("config.json", config.model_dump(mode="json"))
        folder.write_json("run.json", record.model_dump(mode="json"))
        shutil.copyfile(knowledge, folder.file("knowledge.parquet"))
    return RunFolder(path)


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Lock the run folder for the block, so that no second process trains in it; the lock ends with the process.

    Deletes what a killed process left half-written.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written.
    """
    with held(folder.path, "wait for it, or end it first", inside=True):
        delete_abandoned(folder.file("checkpoints"))
        yield


def open_run_folder(path: Path) -> RunFolder:
    """An existing run folder of a version that this program can read.

    Raises:
        UserError: it is not a run folder, or of a newer version.
    """
    if not (path / "run.json").is_file():
        raise UserError(f"{path}: is not a run folder (no run.json); give one that `sspa-train run` wrote")
    folder = RunFolder(path)
    if (version := read_record(folder.file("run.json"), FormatRecord).format) > FORMAT_VERSION:
        raise UserError(
            f"{path / 'run.json'}: was written by a newer sspa (format {version}, this one reads {FORMAT_VERSION})"
        )
    return folder


def _free_name(parent: Path, name: str) -> Path:
    count = 1
    while (path := parent / (name if count == 1 else f"{name}-{count}")).exists():
        count += 1
    return path
