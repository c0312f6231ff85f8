"""What a GPU must do as a CPU does; with SSPA_GPU_TESTS_ON=cpu the tests themselves are tried on a CPU."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch

from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.run_folder import RunFolder

from .conftest import Ended
from .tiny_run import train_arguments

Command = Callable[..., Ended]
DEVICE = os.environ.get("SSPA_GPU_TESTS_ON", "cuda")
HEADS = ("sspa", "linear", "csra", "ml-decoder", "query2label", "dualcoop", "zero-shot", "tip-adapter")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))


def walk(sspa_train: Command, squares: Path, run: Path, head: str, device: str) -> None:
    """Train and use a run of this head on the device, with each command that takes one."""
    epochs = "0" if head in ("zero-shot", "tip-adapter") else "1"
    context = ["model.context=4"] if head == "dualcoop" else []
    given = arguments(squares, run, f"model.head={head}", *context, device=device)
    ended = sspa_train(*given, "--epochs", epochs)
    assert ended.code == 0, ended.messages
    np.testing.assert_allclose(probabilities(run, squares, device), probabilities(run, squares, "cpu"), atol=2e-3)
    assert sspa_train("evaluate", run, "--device", device).code == 0
    out = run.with_name("tags")
    ended = sspa_train("predict", run, squares / "pictures", "--out", f"{out}/", "--per-file", 100, "--device", device)
    assert ended.code == 0, ended.messages
    assert duckdb.sql(f"SELECT count(*), count(error) FROM '{out}/*.parquet'").fetchall() == [(144, 0)]


def arguments(squares: Path, out: Path, *settings: str, device: str = DEVICE) -> list[str]:
    given = [word for setting in settings for word in ("--set", setting)]
    return [*train_arguments(squares, out), "--device", device, *given]


def probabilities(run: Path, squares: Path, device: str) -> np.ndarray:
    paths = sorted((squares / "pictures").glob("test*.png"))
    tagger = Tagger.load(run, device=device, precision="float32")
    return tagger.probabilities(torch.stack([tagger.prepare(path) for path in paths]))


@pytest.mark.parametrize("head", HEADS)
def test_a_run_is_trained_used_and_exported(sspa_train: Command, squares: Path, tmp_path: Path, head: str) -> None:
    walk(sspa_train, squares, tmp_path / "run", head, DEVICE)
    assert sspa_train("report", tmp_path / "run", "--device", DEVICE).code == 0
    assert sspa_train("export", tmp_path / "run", "--to", "torch").code == 0


@pytest.mark.parametrize(
    "settings",
    [
        ("training.precision=bf16",),
        pytest.param(("training.precision=fp16",), marks=pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")),
        ("backbone.tower=last:1",),
        ("training.accumulate=2",),
        ("loss.kind=two-way",),
    ],
    ids="-".join,
)
def test_a_run_learns_in_each_mode(
    sspa_train: Command, squares: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    ended = sspa_train(*arguments(squares, run, *settings))
    assert ended.code == 0, ended.messages
    result = RunFolder(run).result()
    assert result.test["both"].mAP > result.untrained_test["both"].mAP


def test_a_killed_run_resumes_with_the_same_weights(sspa_train: Command, squares: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert sspa_train(*arguments(squares, whole)).code == 0
    command = [str(Path(sys.executable).with_name("sspa-train")), *arguments(squares, killed)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(killed.glob("checkpoints/epoch-*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert sspa_train(*arguments(squares, killed), "--resume").code == 0
    assert (whole / "weights.safetensors").read_bytes() == (killed / "weights.safetensors").read_bytes()


@pytest.mark.skipif(torch.cuda.device_count() < 2 and DEVICE == "cuda", reason="one GPU")
def test_two_processes_see_what_one_sees(sspa_train: Command, squares: Path, tmp_path: Path) -> None:
    still = ("model.region_dropout=0", "model.qsm.dropout=0")
    one, two = tmp_path / "one", tmp_path / "two"
    assert sspa_train(*arguments(squares, one, *still)).code == 0
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(Path(sys.executable).with_name("sspa-train")), *arguments(squares, two, *still)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    np.testing.assert_allclose(probabilities(two, squares, "cpu"), probabilities(one, squares, "cpu"), atol=1e-3)
