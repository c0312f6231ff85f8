"""Which folder --resume finds, and what it rejects; messages for folders that cannot be written."""

import json
import os
from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.config.resolving import resolve_config
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.runs.records import (
    DataRecord,
    EnvironmentRecord,
    KnowledgeRecord,
    ProtocolRecord,
    RefitRecord,
    RunRecord,
)
from sspa.stage2_training.runs.resuming import finished_run, folder_to_resume
from sspa.stage2_training.runs.run_folder import RunFolder, check_free, locked
from sspa.stage2_training.training import event_log


def _config(**values: object) -> RunConfig:
    return resolve_config(values={"knowledge": "k.parquet", **values})


def _folder(path: Path, config: RunConfig, age: int = 0, version: int = 1, refit: str | None = None) -> RunFolder:
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.write_json("config.json", config.model_dump(mode="json"))
    record = RunRecord(
        format=version,
        labels=("cat",),
        data=DataRecord(name="pets", hash="d"),
        protocol=ProtocolRecord(name="custom", hash="p"),
        knowledge=KnowledgeRecord(file="k.parquet", hash="k"),
        seed=0,
        device="cpu",
        environment=EnvironmentRecord(python="3", libraries={}),
        refit=None if refit is None else RefitRecord(of=refit, weights="w", splits=("train", "val"), images=1),
    )
    folder.write_json("run.json", record.model_dump(mode="json"))
    os.utime(path / "run.json", (1_000_000_000 - age,) * 2)
    return folder


def test_the_newest_run_of_this_configuration_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _folder(Path("runs/old"), _config(), age=5)
    wanted = _folder(Path("runs/new"), _config(), age=3)
    _folder(Path("runs/other"), _config(**{"training.seed": 1}))
    _folder(Path("runs/newer-program"), _config(), version=99)
    _folder(Path("runs/new-refit"), _config(), refit="runs/new")
    assert folder_to_resume(None, _config()) == wanted
    assert finished_run(None, _config()) is None
    wanted.write_json("result.json", {})
    wanted.file("checkpoints/epoch-6-step-0").mkdir(parents=True)  # killed before it removed them
    assert finished_run(None, _config()) == wanted
    assert not wanted.file("checkpoints").exists()
    with pytest.raises(UserError, match=r"the nearest, runs/other differs in training.lr: 0.0005, now 0.1"):
        folder_to_resume(None, _config(**{"training.lr": 0.1, "training.seed": 1}))


def test_a_named_folder_may_be_new_and_must_be_of_this_configuration(tmp_path: Path) -> None:
    assert folder_to_resume(tmp_path / "new", _config()) is None
    (tmp_path / "empty").mkdir()
    assert folder_to_resume(tmp_path / "empty", _config()) is None
    folder = _folder(tmp_path / "run", _config(**{"training.lr": 0.1, "model.head": "csra"}))
    with pytest.raises(UserError, match=r"another configuration .*training.lr: 0.1, now 0.0005"):
        folder_to_resume(folder.path, _config(**{"model.head": "csra"}))
    refit = _folder(tmp_path / "run-refit", _config(), refit="run")
    with pytest.raises(UserError, match="is a refit of run; it is resumed by sspa-train refit, with --resume"):
        folder_to_resume(refit.path, _config())
    (tmp_path / "empty" / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a run folder"):
        folder_to_resume(tmp_path / "empty", _config())


def test_a_folder_in_use_is_told_from_a_finished_and_an_unfinished_one(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "run", _config())
    with pytest.raises(UserError, match="unfinished run; resume it with --resume"):
        check_free(folder.path)
    (folder.path / ".weights.safetensors.abcd1234.tmp").mkdir()
    (folder.path / ".weights.safetensors.abcd1234.tmp" / "weights.safetensors").write_text("half")
    (folder.path / ".mine.txt").write_text("a user's own")
    with (
        locked(folder),
        pytest.raises(UserError, match=rf"process {os.getpid()} on .* is writing it; wait for it, or end it first"),
        locked(folder),
    ):
        pass
    assert sorted(path.name for path in folder.path.glob(".*")) == [".mine.txt"]
    folder.write_json("result.json", {})
    with pytest.raises(UserError, match="exists already; nothing in it was changed"):
        check_free(folder.path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder(tmp_path / "run", _config())

    def refuse(*arguments: object, **options: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(UserError, match=r"metrics.jsonl: cannot be written \(Read-only file system\)"):
        folder.append("metrics.jsonl", {})
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(UserError, match=r"result.json: cannot be written \(Read-only file system\)"):
        folder.write_json("result.json", {})


def test_metrics_are_cut_to_what_a_checkpoint_knows(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "run", _config())
    first = folder.append("metrics.jsonl", {"epoch": 0})
    folder.append("metrics.jsonl", {"epoch": 1})
    folder.cut_metrics(first)
    assert [line.epoch for line in folder.epochs()] == [0]
    assert folder.append("metrics.jsonl", {"epoch": 1}) == len((folder.path / "metrics.jsonl").read_bytes())


def test_tensorboard_is_asked_for_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(UserError, match="needs tensorboard: install sspa with the extra 'tensorboard'"):
        event_log.check_tensorboard(True)
    event_log.check_tensorboard(False)
    event_log.open_event_log(tmp_path / "log", False, 0).add_scalar("loss", 1.0, 1)
    assert not (tmp_path / "log").exists()


def test_curves_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start in (0, 2):  # the second goes on from step 2: what came after it is taken back
        log = event_log.open_event_log(tmp_path, True, start)
        for step in range(start + 1, 5):
            log.add_scalar("loss", start + step, step)
        log.close()
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in found] == [(1, 1), (2, 2), (3, 5), (4, 6)]


def test_the_record_names_its_preset(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "run", _config(**{"backbone.name": "open_clip:ViT-B-16", "data.name": "voc2007"}))
    assert json.loads((folder.path / "config.json").read_text())["preset"] == "voc2007"
