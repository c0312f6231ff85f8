"""What a killed process leaves is deleted; what a living one uses is not."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sspa.shared.files import replacing
from sspa.shared.temporary_folders import delete_abandoned, temporary_folder

_WRITE = """
import sys, time
from pathlib import Path
from sspa.shared.files import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_nothing_for_long(tmp_path: Path) -> None:
    file = tmp_path / "voc[1].parquet"  # brackets mean something in a pattern
    file.write_text("old")
    with subprocess.Popen([sys.executable, "-c", _WRITE, str(file)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        (half,) = tmp_path.glob(".voc*")
        assert delete_abandoned(tmp_path) == []
        assert (half / file.name).read_text() == "half"
        writer.send_signal(signal.SIGKILL)
    assert half.is_dir()
    with replacing(file) as beside:
        assert not half.exists()
        beside.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_text() == "new"


def test_only_folders_of_ours_are_deleted(tmp_path: Path) -> None:
    for name in (".mine.tmp", "mine.abcd1234.tmp", ".a.abcd1234.tmp2", ".a.ABCD1234.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".file.abcd1234.tmp").touch()
    abandoned = tmp_path / ".a.abcd1234.tmp"
    abandoned.mkdir()
    assert delete_abandoned(tmp_path) == [abandoned]
    assert len(list(tmp_path.iterdir())) == 5


def test_it_may_be_moved_away_or_fail(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, ".a.") as folder:
        folder.rename(tmp_path / "kept")
    with pytest.raises(RuntimeError), temporary_folder(tmp_path, ".a."):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
