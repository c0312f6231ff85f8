"""Files are written atomically, with the permissions of any new file."""

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sspa.shared.errors import UserError
from sspa.shared.files import replacing, replacing_folder


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "kept.txt"
    file.write_text("old")

    def fail_half_way() -> None:
        with replacing(file) as beside:
            beside.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]
    assert file.read_text() == "old"


def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "kept.txt"
    file.write_text("old")
    with pytest.raises(UserError, match=r"kept.txt: cannot be written \(No space left on device\)"), replacing(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]
    assert file.read_text() == "old"


def test_a_full_disk_in_a_folder_is_one_line_without_temporary_names(tmp_path: Path) -> None:
    folder = tmp_path / "built"
    with (
        pytest.raises(UserError, match=rf"^{folder}/a.json: cannot be written \(No space left on device\); nothing"),
        replacing_folder(folder) as beside,
        replacing(beside / "a.json"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(UserError, match=rf"^{folder}: cannot be written \(No such file or directory: gone.bin\)"),
        replacing_folder(folder) as beside,
    ):
        Path("gone.bin").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_the_mode_is_that_of_any_new_file_whoever_wrote_it(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    with replacing(tmp_path / "weights.safetensors") as beside:
        save_file({"a": torch.zeros(1)}, beside)  # makes a private file of its own
    assert (tmp_path / "weights.safetensors").stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("keep_theirs", [True, False])
def test_a_folder_that_another_finished_first_is_kept(tmp_path: Path, keep_theirs: bool) -> None:
    folder = tmp_path / "built"
    refused = pytest.raises(UserError, match="built: was written meanwhile by another process; it is kept")
    with nullcontext() if keep_theirs else refused, replacing_folder(folder, keep_theirs) as beside:
        (beside / "mine").touch()
        folder.mkdir()
        (folder / "theirs").touch()
    assert [entry.name for entry in folder.iterdir()] == ["theirs"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["built"]
