"""Digests of image files against hashlib's, and when a file is read again."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.features import image_digests as module
from sspa.stage2_training.features.image_digests import image_digests


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
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
    files: list[Path] = []
    seen = module._seen
    monkeypatch.setattr(module, "_seen", lambda file: files.append(file) or seen(file))
    return files


def test_digests_are_those_of_the_contents_in_the_order_of_the_paths(images: list[Path]) -> None:
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in images]

    assert image_digests(images) == expected
    assert image_digests(images[::-1]) == expected[::-1]
    assert expected[1] == expected[2]  # Where a file lies is no part of it.


def test_a_file_is_read_again_only_if_it_was_changed_or_moved(images: list[Path], read: list[Path]) -> None:
    image_digests(images[:2])
    image_digests(images)
    assert sorted(read) == sorted(images)  # Each once, though the second call knew two of them.

    read.clear()
    os.utime(images[0], ns=(1, 1))
    images[1].write_bytes(b"longer than it was before")
    before = image_digests([images[2]])
    assert image_digests(images)[2:] == before
    assert sorted(read) == sorted(images[:2])

    read.clear()
    copies = shutil.copytree(images[0].parent, images[0].parents[1] / "c")
    assert image_digests([copies / "1.jpg"]) == before
    assert read == [copies / "1.jpg"]


def test_an_image_in_a_shard_is_known_by_its_shard_and_name(tmp_path: Path, images: list[Path]) -> None:
    shard = tmp_path / "train-000000.tar"
    shard.write_bytes(b"as if it were a shard")
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()

    assert image_digests([shard / "x.jpg", shard / "y.jpg"]) == [f"{digest} x.jpg", f"{digest} y.jpg"]


def test_a_missing_file_is_one_line(images: list[Path]) -> None:
    images[1].unlink()

    with pytest.raises(UserError, match=r"a/1\.jpg: cannot be read \(No such file or directory\)$"):
        image_digests(images)


@pytest.mark.parametrize("content", ["", "[]", '{"1.jpg": 3}', '{"1.jpg": [1, 2]}', '{"1.jpg": ["x", 1, "y"]}'])
def test_a_damaged_memory_is_replaced(
    images: list[Path], content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = image_digests(images)
    memories = list((tmp_path / "cache" / "image-digests").iterdir())
    assert len(memories) == 2
    for memory in memories:
        memory.write_text(content)

    assert image_digests(images) == expected
    assert "damaged; reading the images" in capsys.readouterr().err
    assert image_digests(images) == expected
    assert not capsys.readouterr().err


def test_many_files_show_their_progress(
    images: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LONG_WORK", 2)

    image_digests(images)

    assert "checksums of images: 3/3 images" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_costs_only_the_memory(
    images: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> NoReturn:
        raise UserError(f"{path}: cannot be written (Read-only file system)")

    expected = image_digests(images)
    image_digests(images)
    monkeypatch.setattr(module, "replacing", refuse)
    os.utime(images[0], ns=(1, 1))

    assert image_digests(images) == expected
    assert "going on without keeping these checksums" in capsys.readouterr().err
