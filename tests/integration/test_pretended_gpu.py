"""Runs on a pretended GPU, which finds tensors of two devices in one operation."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from sspa.stage2_training.cli import run as cli_run
from sspa.stage2_training.features.batches import Batch, FeatureBatches
from sspa.stage2_training.model.quaternion import QuaternionLinear
from sspa.stage2_training.training import run, trainer
from sspa.stage2_training.training.steps import Step, train_steps
from tests.pretended_cuda import MixUpError, pretended_cuda

from .conftest import Ended
from .test_gpu import HEADS, arguments, walk

Command = Callable[..., Ended]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    # Of a quarter of the time; one test writes a report on the device.
    monkeypatch.setattr(cli_run, "_report", lambda *_: None)
    with pretended_cuda() as waits:
        yield waits


@pytest.mark.parametrize("head", HEADS)
def test_a_run_is_trained_and_used(sspa_train: Command, squares: Path, tmp_path: Path, head: str) -> None:
    walk(sspa_train, squares, tmp_path / "run", head, "cuda")
    if head == "sspa":
        assert sspa_train("report", tmp_path / "run", "--device", "cuda").code == 0
        image, out = squares / "pictures" / "test0.png", tmp_path / "explained"
        assert sspa_train("explain", tmp_path / "run", image, "--out", out, "--device", "cuda").code == 0


@pytest.mark.parametrize(
    "settings",
    [
        ("training.precision=bf16",),
        ("data.known_fraction=0.5", "teacher.run=self"),
        ("training.precision=fp16",),
        ("backbone.tower=last:1", "backbone.region_grid=[2,2]"),
        ("training.accumulate=2",),
        ("loss.kind=two-way",),
    ],
    ids="-".join,
)
def test_every_mode_stays_on_its_device(
    sspa_train: Command, squares: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    ended = sspa_train(*arguments(squares, tmp_path / "run", *settings, device="cuda"), "--epochs", "1")
    assert ended.code == 0, ended.messages


def test_a_run_in_fp16_scores_in_it_and_in_float32_on_a_cpu(sspa_train: Command, squares: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = sspa_train(*arguments(squares, run, "training.precision=fp16", device="cuda"), "--epochs", "1")
    assert ended.code == 0, ended.messages
    assert json.loads((run / "result.json").read_text())["precision"] == {"training": "fp16", "scoring": "fp16"}
    assert sspa_train("evaluate", run, "--device", "cuda").code == 0
    ended = sspa_train("evaluate", run, "--device", "cpu")
    assert ended.code == 0
    assert "the image tower computes in float32 here" in ended.messages
    ended = sspa_train("evaluate", run, "--device", "cpu", "--precision", "fp16")
    assert ended.code == 2
    assert "precision=fp16 needs a GPU; take bf16 or float32 on a CPU" in ended.messages


def test_a_run_resumes(sspa_train: Command, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert sspa_train(*arguments(squares, whole, device="cuda"), "--epochs", "2").code == 0
    with monkeypatch.context() as patch:
        ends = iter((run._Measuring.after_epoch, _interrupted))
        patch.setattr(run._Measuring, "after_epoch", lambda *given: next(ends)(*given))
        assert sspa_train(*arguments(squares, stopped, device="cuda"), "--epochs", "2").code == 130
    assert sspa_train(*arguments(squares, stopped, device="cuda"), "--epochs", "2", "--resume").code == 0
    assert (whole / "weights.safetensors").read_bytes() == (stopped / "weights.safetensors").read_bytes()


def test_a_step_seldom_waits_for_the_gpu(
    sspa_train: Command, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: Counter[str]
) -> None:
    seen: list[Counter[str]] = []

    def steps(*given: Any) -> Iterator[Step]:
        for step in train_steps(*given):
            seen.append(waits.copy())
            yield step

    monkeypatch.setattr(trainer, "train_steps", steps)
    assert sspa_train(*arguments(squares, tmp_path / "run", device="cuda"), "--epochs", "1").code == 0
    assert [after - before for before, after in pairwise(seen)] == [Counter(tolist=1)] * (len(seen) - 1)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _targets_stay(patch: pytest.MonkeyPatch) -> None:
    real = FeatureBatches.epoch

    def epoch(self: FeatureBatches, epoch: int, start: int = 0) -> Iterator[Batch]:
        for inputs, targets, indices in real(self, epoch, start):
            yield inputs, targets.cpu(), indices

    patch.setattr(FeatureBatches, "epoch", epoch)


def _a_module_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(QuaternionLinear, "_apply", lambda self, *_, **__: self)


def _probabilities_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tensor, "cpu", lambda self: self)


@pytest.mark.parametrize("plant", [_targets_stay, _a_module_stays, _probabilities_stay])
def test_a_planted_mistake_is_found(
    sspa_train: Command,
    squares: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
) -> None:
    plant(monkeypatch)
    with pytest.raises((MixUpError, TypeError), match="cuda:0"):
        sspa_train(*arguments(squares, tmp_path / "run", device="cuda"))
