"""Digests of files against hashlib's, and when a file is read again."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from sspa.shared import file_digests as module
from sspa.shared.errors import UserError
from sspa.shared.file_digests import file_digests


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three files in two folders, with a cache of their own."""
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / "data" / name for name in ("b/2.jpg", "a/1.jpg", "b/1.jpg")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"content of {path.name}".encode())
    return paths


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, as they are read."""
    read_files: list[Path] = []
    seen = module._seen
    monkeypatch.setattr(module, "_seen", lambda file: read_files.append(Path(file)) or seen(file))
    return read_files


def test_digests_are_those_of_the_contents_in_the_order_of_the_paths(files: list[Path]) -> None:
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    assert file_digests(files, "images") == expected
    assert file_digests(files[::-1], "images") == expected[::-1]
    assert expected[1] == expected[2]  # Where a file lies is no part of it.


def test_a_file_is_read_again_only_if_it_was_changed_or_moved(files: list[Path], read: list[Path]) -> None:
    file_digests(files[:2], "images")
    file_digests(files, "images")
    assert sorted(read) == sorted(files)  # Each once, though the second call knew two of them.

    read.clear()
    os.utime(files[0], ns=(1, 1))
    files[1].write_bytes(b"longer than it was before")
    before = file_digests([files[2]], "images")
    assert file_digests(files, "images")[2:] == before
    assert sorted(read) == sorted(files[:2])

    read.clear()
    copies = shutil.copytree(files[0].parent, files[0].parents[1] / "c")
    assert file_digests([copies / "1.jpg"], "images") == before
    assert read == [copies / "1.jpg"]


def test_a_missing_file_is_one_line(files: list[Path]) -> None:
    files[1].unlink()

    with pytest.raises(UserError, match=r"a/1\.jpg: cannot be read \(No such file or directory\)$"):
        file_digests(files, "images")


@pytest.mark.parametrize("content", ["", "[]", '{"1.jpg": 3}', '{"1.jpg": [1, 2]}', '{"1.jpg": ["x", 1, "y"]}'])
def test_a_damaged_memory_is_replaced(
    files: list[Path], content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = file_digests(files, "images")
    memories = list((tmp_path / "cache" / "file-digests").iterdir())
    assert len(memories) == 2
    for memory in memories:
        memory.write_text(content)

    assert file_digests(files, "images") == expected
    assert "damaged; reading the files" in capsys.readouterr().err
    assert file_digests(files, "images") == expected
    assert not capsys.readouterr().err


def test_many_files_show_their_progress(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LONG_WORK", 2)

    file_digests(files, "images")

    assert "checksums of images: 3/3 images" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_costs_only_the_memory(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> NoReturn:
        raise UserError(f"{path}: cannot be written (Read-only file system)")

    expected = file_digests(files, "images")
    file_digests(files, "images")
    monkeypatch.setattr(module, "replacing", refuse)
    os.utime(files[0], ns=(1, 1))

    assert file_digests(files, "images") == expected
    assert "going on without keeping these checksums" in capsys.readouterr().err
