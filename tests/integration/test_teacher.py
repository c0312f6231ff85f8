"""A run with a teacher: what is taught, and that no interruption changes it."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from sspa.shared.knowledge_format import write_knowledge
from sspa.stage2_training.data.manifest import read_manifest, write_manifest
from sspa.stage2_training.runs.run_folder import RunFolder

from .driver import kill
from .killed_runs import STEP, TRAINING, Runs, left, said

pytestmark = pytest.mark.slow

# Of twelve batches, a teacher sees fewer: images of which nothing is known are left out.
KNOWN, EPOCHS = 40, 2
TAUGHT = f"{TRAINING}.trainer:taught_marks"


@pytest.fixture(scope="module")
def settings(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Of the squares' 96 training images only 40 have labels, and one of these one unknown label."""
    manifest = read_manifest(squares / "squares.parquet")
    targets = manifest.targets.copy()
    train = manifest.rows_of("train")
    targets[train[KNOWN:]] = -1
    targets[train[0], 1] = -1
    path = tmp_path_factory.mktemp("partly") / "partly.parquet"
    write_manifest(type(manifest)(**{**vars(manifest), "targets": targets}), path)
    return f"data.name={path}", f"training.epochs={EPOCHS}"


@pytest.fixture(scope="module")
def whole(driver: Runs, settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run that has made its own teacher."""
    out = tmp_path_factory.mktemp("taught") / "run"
    assert driver.run(out, *settings, "teacher.run=self", "teacher.sure=0.6") == [0], said(out)
    return out


def everything_left(out: Path) -> dict[str, Any]:
    """What no interruption may change, of the run and its teacher."""
    return {**left(out), "taught": (out / "taught.parquet").read_bytes(), "teacher": left(out / "teacher")}


def test_a_run_learns_what_its_teacher_is_sure_of(driver: Runs, settings: tuple[str, ...], whole: Path) -> None:
    rows = duckdb.sql(f"SELECT image, marks FROM '{whole}/taught.parquet'").fetchall()
    assert [image for image, _ in rows] == [f"train{number}" for number in range(96)]
    marks = np.array([[-1 if mark is None else mark for mark in fields.values()] for _, fields in rows])
    # Nothing is taught about what is known.
    assert (marks[1:KNOWN] == -1).all()
    assert (marks[0, [0, 2]] == -1).all()
    about = RunFolder(whole).result().taught
    assert about is not None
    assert (about.teacher, about.present, about.absent) == ("self", (marks == 1).sum(), (marks == 0).sum())
    assert about.images == (marks >= 0).any(axis=1).sum()
    assert about.present + about.absent > 0
    # The teacher saw the images of which something is known, the run those that were taught as well.
    assert f"left out of training, since nothing is known of them: {96 - KNOWN} of 96 images" in said(whole)
    assert f"epochs of {KNOWN // 8} steps" in said(whole)
    taught = int(((marks >= 0).any(axis=1) | (np.arange(96) < KNOWN)).sum())
    assert f"epochs of {taught // 8} steps" in said(whole)
    assert RunFolder(whole / "teacher").result().taught is None
    assert not (whole / "teacher" / "taught.parquet").exists()


@pytest.mark.parametrize(
    "fault",
    [kill(STEP, 7), kill(STEP, 12), kill(TAUGHT, 1), kill(f"{TRAINING}.teaching:write_taught", 1)],
    ids=["in the teacher", "in the run", "before its first step", "after what was taught was written"],
)
def test_killed_it_ends_as_if_it_had_not_been(
    driver: Runs, settings: tuple[str, ...], whole: Path, tmp_path: Path, fault: dict[str, Any]
) -> None:
    out, options = tmp_path / "run", (*settings, "teacher.run=self", "teacher.sure=0.6")
    assert driver.run(out, *options, faults=[fault]) == [-signal.SIGKILL], said(out)
    assert driver.run(out, *options, resume=True) == [0], said(out)
    assert everything_left(out) == everything_left(whole)


def test_a_signal_in_the_teacher_says_how_to_resume_the_run(
    driver: Runs, settings: tuple[str, ...], tmp_path: Path
) -> None:
    out, options = tmp_path / "run", (*settings, "teacher.run=self")
    assert driver.run(out, *options, faults=[kill(STEP, 3, signal.SIGTERM)]) == [143], said(out)
    stops = [line for line in said(out).splitlines() if "stopped" in line]
    assert stops == [f"stopped; resume with the same command and --resume, or with --resume --out {out}"]


def test_two_processes_of_which_one_has_the_folder(driver: Runs, settings: tuple[str, ...], tmp_path: Path) -> None:
    out, options = tmp_path / "run", (*settings, "teacher.run=self")
    assert driver.run(out, *options, world=2, own_disks=True) == [0, 0], said(out)
    assert "touched" not in said(out)
    assert RunFolder(out).result().taught is not None


def test_a_finished_run_teaches_another(driver: Runs, settings: tuple[str, ...], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert driver.run(out, *settings, "training.epochs=1", f"teacher.run={whole}", "teacher.sure=0.6") == [0], said(out)
    taught = RunFolder(out).result().taught
    assert taught is not None
    assert taught.teacher == str(whole)
    assert taught.present + taught.absent > 0
    assert not (out / "teacher").exists()
    # What cannot teach is said before anything is written.
    wrong, knowing_others = tmp_path / "wrong", tmp_path / "others"
    shutil.copytree(whole, knowing_others)
    about = json.loads((whole / "run.json").read_text())
    (knowing_others / "run.json").write_text(json.dumps({**about, "labels": ["cat"]}))
    write_knowledge(knowing_others / "knowledge.parquet", [{"label": "cat", "text": "cat", "description": "A cat."}])
    for teacher, message in (
        (tmp_path, "is not a run folder"),
        (knowing_others, "knows none of the labels square0, square1, square2; take another teacher"),
    ):
        assert driver.run(wrong, *settings, f"teacher.run={teacher}") == [2], said(wrong)
        assert message in said(wrong)
        assert not wrong.exists()


def test_where_nothing_is_unknown_no_teacher_is_asked(driver: Runs, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert driver.run(out, "training.epochs=1", "teacher.run=self") == [0], said(out)
    assert "nothing is unknown in train that a teacher may say" in said(out)
    assert "taught" not in json.loads((out / "result.json").read_text())


def test_report_and_package_say_what_was_taught(driver: Runs, squares: Path, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "package"
    log = tmp_path / "package.log"
    assert driver.ask(arguments=["package", str(whole), "--out", str(path)], log=str(log)) == [0], log.read_text()
    taught = RunFolder(whole).result().taught
    assert taught is not None
    assert taught.words in (path / "README.md").read_text()
    assert not (path / "teacher").exists()
    assert RunFolder(path).result().taught == taught
