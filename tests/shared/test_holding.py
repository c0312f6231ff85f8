"""One writer at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.shared.holding import held

_HOLD = """
import sys, time
from pathlib import Path
from sspa.shared.holding import held
with held(Path(sys.argv[1]), "wait for it", inside=sys.argv[2] == "inside"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_the_second_is_told_who_is_first_and_a_killed_one_lets_go(tmp_path: Path, where: str) -> None:
    path = tmp_path / "run"
    path.mkdir()
    command = [sys.executable, "-c", _HOLD, str(path), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        told = pytest.raises(UserError, match=f"run: process {first.pid} on .* is writing it; wait for it")
        with told, held(path, "wait for it", inside=where == "inside"):
            raise AssertionError("two processes hold it")
        first.send_signal(signal.SIGKILL)
    with held(path, "wait for it", inside=where == "inside"):
        assert any(str(os.getpid()) in file.read_text() for file in tmp_path.rglob("*.holder"))
    assert list(tmp_path.rglob(".*")) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    told = pytest.raises(UserError, match=r"out.parquet: cannot be written \(")
    with told, held(tmp_path / "file" / "out.parquet", "wait for it"):
        pass


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which even root can create nothing")
def test_a_folder_that_cannot_be_written_is_not_taken_for_a_locked_one() -> None:
    told = pytest.raises(UserError, match=r"out.parquet: cannot be written \(")
    with told, held(Path("/proc/self/out.parquet"), "wait for it"):
        pass


@pytest.mark.parametrize("inside", [True, False])
def test_what_a_killed_process_left_is_deleted(tmp_path: Path, inside: bool) -> None:
    path = tmp_path / "run"
    path.mkdir()
    left = path / ".weights.abcd1234.tmp" if inside else tmp_path / ".run.abcd1234.tmp"
    left.mkdir()
    with held(path, "wait for it", inside=inside):
        assert not left.exists()
