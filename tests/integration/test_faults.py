"""Kills, full disks, second processes and folders that cannot be written: one line, the old state, and on it goes."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sspa.shared.holding import held
from sspa.stage2_training.runs.run_folder import RunFolder, locked

from .conftest import Ended
from .driver import kill
from .killed_runs import Runs
from .tiny_run import COLOURS, train_arguments

pytestmark = pytest.mark.slow

Command = Callable[..., Ended]

STAGE = "sspa.stage2_training"
# Called after a file was written beside, and again after it was moved into place.
FLUSH = "sspa.shared.files:_flush"
STEP = f"{STAGE}.training.optimization:Optimization.update"

COMPARISON = """
about: our head and another, for the tests
variants:
  sspa: {}
  csra: {model.head: csra}
seeds: [0]
reference: sspa
"""


@dataclass
class Place:
    """A folder with a finished run and all that the commands need."""

    folder: Path
    squares: Path
    driver: Runs

    def arguments(self, command: str) -> tuple[list[str], Path]:
        """The arguments of a command that writes something, and what it writes."""
        run, out = self.folder / "run", self.folder / "out"
        image = self.squares / "pictures" / "test5.png"
        _, *given = train_arguments(self.squares, out)
        wanted = {
            "run": (["run", *given], out),
            "compare": (["compare", str(self.folder / "heads.yaml"), *self._without_epochs(given)], out),
            "predict": (
                ["predict", str(run), str(self.squares / "pictures"), "--out", f"{out}.parquet"],
                "out.parquet",
            ),
            "package": (["package", str(run), "--out", str(out)], out),
            "export": (["export", str(run), "--to", "torch", "--out", f"{out}.pt2"], "out.pt2"),
            "report": (["report", str(run)], run / "report.html"),
            "explain": (["explain", str(run), str(image), "--out", str(out)], out),
        }[command]
        return wanted[0], self.folder / wanted[1]

    def start(self, command: str, **options: Any) -> tuple[int, str]:
        """Start a command in a process of its own; its exit code and what it printed."""
        log = self.folder.parent / "log"
        log.unlink(missing_ok=True)
        (code,) = self.driver.ask(arguments=self.arguments(command)[0], log=str(log), **options)
        said = log.read_text()
        assert "Traceback" not in said
        return code, said

    def hidden(self) -> list[str]:
        """What was left half-written, and locks."""
        return sorted(path.name for path in self.folder.rglob(".*"))

    @staticmethod
    def _without_epochs(given: list[str]) -> list[str]:
        at = given.index("--epochs")
        return [*given[:at], *given[at + 2 :], "--set", "training.epochs=1"]


@pytest.fixture(scope="module")
def driver(driver: Runs, squares: Path, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Its cache is warm, so that the number of writes does not depend on the order of the tests."""
    place = tmp_path_factory.mktemp("warm")
    asked = ["predict", str(trained_run), str(squares / "pictures" / "test0.png"), "--out", str(place / "out.parquet")]
    assert driver.ask(arguments=asked, log=str(place / "log")) == [0]
    return driver


@pytest.fixture
def place(driver: Runs, squares: Path, trained_run: Path, tmp_path: Path) -> Place:
    folder = tmp_path / "place"
    shutil.copytree(trained_run, folder / "run")
    (folder / "heads.yaml").write_text(COMPARISON)
    return Place(folder, squares, driver)


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("predict", kill(FLUSH, 3)),
        ("predict", kill(FLUSH, 5)),
        ("package", kill(FLUSH, 2)),
        ("package", kill(f"{STAGE}.export.package:write_model_card", 1)),
        ("export", kill(f"{STAGE}.export.export:largest_difference", 1)),
        ("report", kill(FLUSH, 1)),
        ("explain", kill(FLUSH, 3)),
        ("compare", kill(STEP, 18)),
    ],
    ids=["a part", "joining", "package", "model card", "export", "report", "explain", "compare"],
)
def test_killed_and_started_again(place: Place, command: str, fault: dict[str, Any]) -> None:
    _, out = place.arguments(command)
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    code, said = place.start(command, faults=[fault])
    assert code == -signal.SIGKILL, said
    assert place.hidden() or command == "compare"
    assert {path: path.read_bytes() for path in before} == before
    if command not in {"report", "explain", "compare"}:
        assert not out.exists(), "half of it is there"
    code, said = place.start(command)
    assert code == 0, said
    assert out.exists()
    assert place.hidden() == []


def test_predictions_killed_after_their_last_write(place: Place) -> None:
    _, out = place.arguments("predict")
    assert place.start("predict", faults=[kill(FLUSH, 6)])[0] == -signal.SIGKILL
    assert out.is_file()
    assert any(name.endswith(".parts") for name in place.hidden())
    code, said = place.start("predict")
    assert (code, "exists already" in said) == (2, True), said
    assert place.hidden() == []
    assert duckdb.sql(f"SELECT count(*) FROM '{out}'").fetchall() == [(144 * len(COLOURS),)]


def test_a_part_that_was_damaged_is_made_again(place: Place) -> None:
    _, out = place.arguments("predict")
    assert place.start("predict", faults=[kill(FLUSH, 5)])[0] == -signal.SIGKILL
    (part,) = (place.folder / ".out.parquet.parts").glob("*.parquet")
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(data)
    code, said = place.start("predict")
    assert code == 0, said
    assert f"{part}: is damaged; its images are tagged again" in said.replace("\n", "")
    assert duckdb.sql(f"SELECT count(DISTINCT path) FROM '{out}'").fetchall() == [(144,)]


def test_features_killed_half_way_are_deleted_by_the_next(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fault = kill(f"{STAGE}.features.computing:under_view", 2)
    asked = {"environment": {"SSPA_CACHE": str(cache)}}
    assert place.start("run", faults=[fault], **asked)[0] == -signal.SIGKILL
    assert {path.suffix for path in (cache / "features").iterdir()} == {".tmp"}
    shutil.rmtree(place.folder / "out")
    code, said = place.start("run", **asked)
    assert code == 0, said
    assert not any(path.suffix == ".tmp" for path in (cache / "features").iterdir())


@pytest.mark.parametrize(
    ("command", "limit"),
    [("run", 60_000), ("compare", 60_000), ("predict", 6_000), ("package", 30_000), ("export", 30_000)],
)
def test_a_full_disk(place: Place, tmp_path: Path, command: str, limit: int) -> None:
    _, out = place.arguments(command)
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    options = {"environment": {"SSPA_CACHE": str(tmp_path / "cache")}} if command in {"run", "compare"} else {}
    code, said = place.start(command, file_size_limit=limit, **options)
    assert code == 2, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert re.search(r"cannot be written \([^)]*File too large\); nothing was changed", line)
    assert ".tmp" not in line
    assert {path: path.read_bytes() for path in before} == before
    if command in {"package", "export", "predict"}:
        assert not out.exists()
    again = place.arguments(command)[0]
    if command == "run":
        again.append("--resume")
    assert place.driver.ask(arguments=again, log=str(tmp_path / "again"), **options) == [0]
    assert out.exists()
    assert place.hidden() == []


@pytest.mark.parametrize("command", ["compare", "predict", "package", "export"])
def test_a_second_process_is_told_who_is_first(sspa_train: Command, place: Place, command: str) -> None:
    arguments, out = place.arguments(command)
    with held(out, "wait for it"):
        ended = sspa_train(*arguments)
    assert ended.code == 2
    assert f"error: {out}: process {os.getpid()} on " in ended.messages
    assert "is writing it; wait for it, or c" in ended.messages.replace("\n", " ")
    assert not out.exists()


def test_a_second_run_in_one_folder(sspa_train: Command, place: Place) -> None:
    arguments, out = place.arguments("run")
    assert place.start("run", faults=[kill(STEP, 5)])[0] == -signal.SIGKILL
    with locked(RunFolder(out)):
        ended = sspa_train(*arguments, "--resume")
        assert (ended.code, ended.messages.count("is writing it; wait for it, or end it first")) == (2, 1)
    assert sspa_train(*arguments, "--resume").code == 0
    ended = sspa_train(*arguments)
    assert (ended.code, "exists already; nothing in it was changed" in ended.messages) == (2, True)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which even root can create nothing")
@pytest.mark.parametrize("command", ["run", "compare", "predict", "package", "export", "explain"])
def test_a_folder_that_cannot_be_written(sspa_train: Command, place: Place, command: str) -> None:
    arguments, out = place.arguments(command)
    unwritable = Path("/proc/self") / out.name
    ended = sspa_train(*(str(unwritable) if word == str(out) else word for word in arguments))
    assert ended.code == 2, ended.messages
    (line,) = [line for line in ended.messages.splitlines() if line.startswith("error: ")]
    assert str(unwritable) in ended.messages.replace("\n", "")
    assert "cannot be written (" in ended.messages.replace("\n", " ")
    assert ".tmp" not in line


def test_a_clock_that_jumped(sspa_train: Command, place: Place) -> None:
    """Files from the future, or all of one time: the named run resumes, and finished work is found."""
    arguments, out = place.arguments("run")
    assert place.start("run", faults=[kill(STEP, 20)])[0] == -signal.SIGKILL
    for path in out.rglob("*"):
        os.utime(path, (4_000_000_000, 4_000_000_000))
    ended = sspa_train(*arguments, "--resume")
    assert ended.code == 0, ended.messages
    assert "resuming in" in ended.messages
    predict, file = place.arguments("predict")
    assert place.start("predict", faults=[kill(FLUSH, 5)])[0] == -signal.SIGKILL
    for path in (place.folder / "run").rglob("*"):
        os.utime(path, (0, 0))
    ended = sspa_train(*predict)
    assert (ended.code, "144 of 144 images are tagged already" in ended.messages) == (0, True), ended.messages
    assert file.is_file()


def test_data_that_moved_does_not_stop_a_resume(sspa_train: Command, place: Place, tmp_path: Path) -> None:
    arguments, out = place.arguments("run")
    assert place.start("run", faults=[kill(STEP, 20)])[0] == -signal.SIGKILL
    moved = tmp_path / "moved"
    shutil.copytree(place.squares / "pictures", moved)
    elsewhere = [str(moved) if word == str(place.squares / "pictures") else word for word in arguments]
    ended = sspa_train(*elsewhere, "--resume")
    assert ended.code == 0, ended.messages
    assert RunFolder(out).config().data.root == moved
