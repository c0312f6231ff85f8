"""A run that is killed and resumed ends with the same bytes as an uninterrupted one."""

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sspa.stage2_training.compute.tensor_files import read_tensors
from sspa.stage2_training.data.manifest import read_manifest, write_manifest
from sspa.stage2_training.evaluation.metrics import evaluate_scores
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions

from .driver import kill
from .killed_runs import EPOCHS, STEP, STEPS, TRAINING, Runs, left, said
from .tiny_run import LABELS

pytestmark = pytest.mark.slow

SAVE = f"{TRAINING}.checkpoint:write_tensors"
PRUNE = f"{TRAINING}.checkpoint:rmtree"
APPEND = "sspa.stage2_training.runs.run_folder:RunFolder.append"
WEIGHTS = "sspa.stage2_training.training.run:write_weights"
SCORE = "sspa.stage2_training.inference.scoring:_score"


@pytest.fixture(scope="module")
def whole(driver: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert driver.run(out) == [0], Path(f"{out}.log").read_text()
    return out


def test_killed_at_ten_random_steps(driver: Runs, whole: Path, tmp_path: Path) -> None:
    out, draw = tmp_path / "run", random.Random(6)
    assert driver.run(out, faults=[kill(STEP, draw.randint(1, STEPS))]) == [-signal.SIGKILL]
    for _ in range(9):
        # No step is reached twice by luck alone: up to five steps are done again after each kill.
        codes = driver.run(out, resume=True, faults=[kill(STEP, draw.randint(1, 9))])
        assert codes == [-signal.SIGKILL], said(out)
    assert driver.run(out, resume=True) == [0], said(out)
    assert left(out) == left(whole)
    assert said(out).count("resuming in") >= 6


@pytest.mark.parametrize(
    "fault",
    [
        kill(SAVE, 1, half=True),
        kill(SAVE, 4, half=True),
        kill(PRUNE, 1),
        kill(APPEND, 1),
        kill(APPEND, 4),
        kill(WEIGHTS, 3),
    ],
    ids=["writing the first checkpoint", "writing another", "pruning", "untrained", "between epochs", "best weights"],
)
def test_killed_between_the_epochs_and_while_writing(
    driver: Runs, whole: Path, tmp_path: Path, fault: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    assert driver.run(out, faults=[fault]) == [-signal.SIGKILL], said(out)
    assert driver.run(out, resume=True) == [0], said(out)
    assert left(out) == left(whole)
    assert not [*out.glob(".*"), *out.glob("checkpoints/.*")]


@pytest.mark.parametrize(
    ("number", "code", "where", "count"),
    [(signal.SIGTERM, 143, STEP, 17), (signal.SIGINT, 130, STEP, 8), (signal.SIGTERM, 143, SCORE, 3)],
)
def test_a_signal_saves_first(
    driver: Runs, whole: Path, tmp_path: Path, number: int, code: int, where: str, count: int
) -> None:
    out = tmp_path / "run"
    assert driver.run(out, faults=[kill(where, count, number)]) == [code], said(out)
    assert f"--resume --out {out}" in said(out)
    if where == STEP:
        # Not one step is lost.
        position = f"epoch-{count // STEPS + 1:05}-step-{count % STEPS:08}"
        assert (out / "checkpoints" / position).is_dir()
    assert driver.run(out, resume=True) == [0], said(out)
    assert left(out) == left(whole)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(driver: Runs, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert driver.run(out, faults=[kill(STEP, 14)]) == [-signal.SIGKILL]
    newer = max(out.glob("checkpoints/epoch-*"))
    data = bytearray((newer / "tensors.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (newer / "tensors.safetensors").write_bytes(data)
    assert driver.run(out, resume=True) == [0], said(out)
    assert f"{newer}: is damaged (tensors.safetensors is not what was written)" in said(out)
    assert left(out) == left(whole)


def test_a_trained_tower_with_its_images(driver: Runs, tmp_path: Path) -> None:
    settings = ("backbone.tower=last:1", "data.randaugment=1", "training.epochs=2", "data.workers=1")
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert driver.run(whole, *settings) == [0], said(whole)
    assert driver.run(out, *settings, faults=[kill(STEP, 8)]) == [-signal.SIGKILL]
    assert driver.run(out, *settings, resume=True, faults=[kill(STEP, 9)]) == [-signal.SIGKILL]
    assert driver.run(out, *settings, resume=True) == [0], said(out)
    assert left(out) == left(whole)


def test_two_processes_killed_end_like_two_that_were_not(driver: Runs, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert driver.run(whole, world=2) == [0, 0], said(whole)
    for rank, count in ((0, 8), (1, 7), (0, 3)):
        codes = driver.run(out, world=2, resume=True, faults=[kill(STEP, count, rank=rank)])
        assert codes[rank] == -signal.SIGKILL
        assert codes[1 - rank] != 0  # it ends by itself: no one waits for a dead process
    codes = driver.run(out, world=2, resume=True, faults=[kill(STEP, 2, signal.SIGTERM, rank=1)])
    assert codes == [143, 143], said(out)
    assert driver.run(out, world=2, resume=True) == [0, 0], said(out)
    assert left(out) == left(whole)
    assert driver.run(out, resume=True, keep_checkpoints=True) == [2]
    assert "this run is finished" in said(out)


def test_only_the_first_process_needs_the_run_folder(driver: Runs, tmp_path: Path) -> None:
    """As on machines that share no disk, where the others' work was lost."""
    out = tmp_path / "run"
    codes = driver.run(out, world=2, own_disks=True, faults=[kill(STEP, 2, signal.SIGTERM)])
    assert codes == [143, 143], said(out)
    assert driver.run(out, world=2, own_disks=True, resume=True) == [0, 0], said(out)
    assert "touched" not in said(out)


def test_a_run_goes_on_with_another_number_of_processes(driver: Runs, tmp_path: Path) -> None:
    """Without dropout it even ends as with one: the batches are the same."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    still = ("model.region_dropout=0", "model.qsm.dropout=0", "training.precision=float32")
    assert driver.run(whole, *still) == [0], said(whole)
    assert driver.run(out, *still, faults=[kill(STEP, 17)]) == [-signal.SIGKILL]
    codes = driver.run(out, *still, world=2, resume=True, faults=[kill(STEP, 14)])
    assert codes[0] == -signal.SIGKILL, said(out)
    assert "was started with 1 processes and resumes with 2" in said(out)
    assert driver.run(out, *still, resume=True) == [0], said(out)
    times = [json.loads(line) for line in (out / "times.jsonl").read_text().splitlines()]
    assert [line["processes"] for line in times] == [1, 2, 1]
    for name, expected in read_tensors(whole / "weights.safetensors").items():
        torch.testing.assert_close(read_tensors(out / "weights.safetensors")[name], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("rank", "named"),
    [
        (1, "has done nothing for 0.2 minutes; its last: "),
        (0, "the process that holds torch's store, torchrun or process 0, does not answer"),
    ],
)
def test_a_process_that_hangs_is_named(driver: Runs, tmp_path: Path, rank: int, named: str) -> None:
    out = tmp_path / "hangs"
    patience = {"SSPA_PATIENCE_MINUTES": "0.2"}
    codes = driver.run(out, world=2, environment=patience, faults=[kill(STEP, 17, signal.SIGSTOP, rank=rank)])
    assert (codes[rank], codes[1 - rank]) == (-signal.SIGKILL, 1), said(out)
    assert named in said(out)
    assert driver.run(out, world=2, resume=True) == [0, 0], said(out)


def test_processes_that_read_different_data_are_told(driver: Runs, squares: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "run", tmp_path / "other.parquet"
    manifest = read_manifest(squares / "squares.parquet")
    write_manifest(manifest.only(np.arange(100)), other)
    codes = driver.run(out, world=2, config_of_others=driver.config(f"data.name={other}"))
    assert codes == [2, 2]
    assert "the data differ in process 1 and in process 0; give all machines the same" in said(out)
    assert not out.exists()


@pytest.fixture(scope="module")
def odd_manifest(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The squares with 23 images in val and in test, which is not divisible by two processes."""
    manifest = read_manifest(squares / "squares.parquet")
    kept = [row for row, key in enumerate(manifest.ids) if key not in ("val5", "test7")]
    path = tmp_path_factory.mktemp("odd") / "odd.parquet"
    write_manifest(manifest.only(np.array(kept)), path)
    return path


@pytest.mark.parametrize(
    "settings",
    [(), ("loss.kind=two-way",), ("training.accumulate=3",), ("backbone.tower=last:1",)],
    ids=["asl", "two-way", "accumulated", "trained tower"],
)
def test_two_processes_see_what_one_sees(
    driver: Runs, odd_manifest: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """Without dropout, since each process draws its own."""
    still = ("model.region_dropout=0", "model.qsm.dropout=0", "training.epochs=2", f"data.name={odd_manifest}")
    one, two = tmp_path / "one", tmp_path / "two"
    assert driver.run(one, *still, *settings) == [0], said(one)
    assert driver.run(two, *still, *settings, world=2) == [0, 0], said(two)
    lines = [[json.loads(line) for line in (out / "metrics.jsonl").open()] for out in (one, two)]
    for first, second in zip(*lines, strict=True):
        assert second.get("loss") == pytest.approx(first.get("loss"), abs=1e-5)
    # Scores, not their ranks: rounding may swap two that are nearly equal, and mAP would jump.
    scores, targets = zip(*(read_predictions(RunFolder(out)) for out in (one, two)), strict=True)
    assert (targets[0] == targets[1]).all()
    assert scores[0].keys() == scores[1].keys()
    for branch, values in scores[0].items():
        assert values.shape == (23, 3)
        np.testing.assert_allclose(scores[1][branch], values, atol=2e-5)
    result = json.loads((two / "result.json").read_text())["test"]
    for branch, values in scores[1].items():
        metrics = evaluate_scores(values, targets[1], LABELS.keys, get_protocol("custom"))
        assert result[branch]["mAP"] == metrics.mAP


def test_an_image_that_one_process_cannot_read_ends_both(driver: Runs, squares: Path, tmp_path: Path) -> None:
    out, root = tmp_path / "run", tmp_path / "pictures"
    shutil.copytree(squares / "pictures", root)
    (root / "val5.png").write_text("no image")
    codes = driver.run(out, f"data.root={root}", "backbone.tower=last:1", world=2)
    assert codes[1] == 2
    assert codes[0] != 0
    (line,) = [line for line in said(out).splitlines() if line.startswith("error:")]
    assert line.startswith("error: process 1: ")
    assert "val5.png" in line


def test_val_is_scored_every_second_epoch_and_after_the_last(driver: Runs, tmp_path: Path) -> None:
    out = tmp_path / "run"

    assert driver.run(out, "training.score_every=2") == [0], said(out)

    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 2, 3]
    shares = json.loads((out / "result.json").read_text())["branch_shares"]
    assert list(shares) == ["region", "global", "knowledge"]
    assert sum(shares.values()) == pytest.approx(1)


def test_a_val_of_a_few_images_chooses_no_epoch(driver: Runs, squares: Path, tmp_path: Path) -> None:
    """At a rate too small to change anything no epoch is better than the untrained model."""
    out, path = tmp_path / "run", tmp_path / "small.parquet"
    manifest = read_manifest(squares / "squares.parquet")
    write_manifest(manifest.only(np.array([*range(96), *range(96, 108), *range(120, 144)])), path)
    still = [f"training.{name}=1e-30" for name in ("lr", "prompt_lr", "scalar_lr")]

    assert driver.run(out, f"data.name={path}", *still) == [0], said(out)

    assert json.loads((out / "result.json").read_text())["best_epoch"] == EPOCHS
    assert not RunFolder(out).record().data.val_chooses


def test_early_stopping_waits_for_a_scoring(driver: Runs, tmp_path: Path) -> None:
    """A rate too small to change anything: the second epoch is the first that is scored, and no better."""
    out = tmp_path / "run"
    still = [f"training.{name}=1e-30" for name in ("lr", "prompt_lr", "scalar_lr")]
    settings = ("training.score_every=2", "training.early_stopping=1", "training.branch_shares=equal")

    assert driver.run(out, *settings, *still) == [0], said(out)

    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 2]
    assert "early stopping: no better val mAP in 2 epochs" in said(out)


def test_wrong_use_is_one_line(driver: Runs, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert driver.run(out, faults=[kill(STEP, 7)]) == [-signal.SIGKILL]

    def refused(*settings: str, **options: Any) -> str:
        Path(f"{out}.log").unlink()
        codes = driver.run(out, *settings, **options)
        assert set(codes) == {2}, said(out)
        assert "Traceback" not in said(out)
        (line,) = [line for line in said(out).splitlines() if line.startswith("error:")]
        return line

    assert "another configuration (training.lr: 0.01, now 0.02); give" in refused("training.lr=0.02", resume=True)
    assert "holds an unfinished run; resume it with --resume" in refused()
    # So large a file may not be written: what a full disk does to a checkpoint.
    assert "the checkpoint before is kept: fix that, then resume" in refused(resume=True, file_size_limit=200_000)
    about = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**about, "format": 99}))
    assert "was written by a newer sspa (format 99" in refused(resume=True)
    (out / "run.json").write_text(json.dumps(about))
    assert driver.run(out, resume=True) == [0], said(out)
