"""Uploads: bounded together, and gone with the demo, even when it is killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sspa.stage2_training.demo.uploads import Uploads, upload_folder

PROGRAM = """
import sys, time
from sspa.stage2_training.demo.uploads import upload_folder
with upload_folder() as folder:
    (folder / "photo.png").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def _started() -> tuple["subprocess.Popen[str]", Path]:
    command = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert command.stdout
    return command, Path(command.stdout.readline().strip())


def test_sigterm_deletes_them() -> None:
    command, folder = _started()
    assert (folder / "photo.png").exists()
    command.send_signal(signal.SIGTERM)
    assert command.wait(30) == 128 + signal.SIGTERM
    assert not folder.exists()


def test_what_a_killed_demo_left_is_swept_and_a_running_ones_kept(temporary: Path) -> None:
    killed, left = _started()
    running, kept = _started()
    killed.kill()
    killed.wait(30)
    assert left.exists()
    with upload_folder() as folder:
        assert not left.exists()
        assert (kept / "photo.png").exists()
        assert oct(folder.stat().st_mode)[-3:] == "700"
    assert not folder.exists()
    running.terminate()
    running.wait(30)
    assert list(temporary.iterdir()) == []


def test_the_oldest_make_room(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, 100)
    for number in range(5):
        path = tmp_path / str(number) / "photo.png"
        path.parent.mkdir()
        path.write_bytes(b"x" * 20)
        os.utime(path, (number, number))
    uploads.make_room(0)
    assert len(list(tmp_path.rglob("*.png"))) == 5
    uploads.make_room(50)
    assert [path.parent.name for path in sorted(tmp_path.rglob("*.png"))] == ["3", "4"]
    uploads.make_room(1000)
    assert not list(tmp_path.rglob("*.png"))


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "uploads" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "uploads" / "own").write_text("own")
    uploads = Uploads(tmp_path / "uploads", 1)
    assert uploads.contains(str(tmp_path / "uploads" / "own"))
    assert not uploads.contains(str(tmp_path / "uploads" / "link"))
    assert not uploads.contains(str(tmp_path / "uploads"))
    assert not uploads.contains("uploads/own")
