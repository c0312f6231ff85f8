"""The user's cache: built once, and again if it is damaged."""

import shutil
from pathlib import Path

import pytest

from sspa.shared.cache import built_once, cache_folder
from sspa.shared.errors import UserError


def _build(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "weights.bin").write_bytes(b"1234")
    (folder / "config.json").write_text("{}")


def _flip(folder: Path) -> None:
    (folder / "deep" / "weights.bin").write_bytes(b"1235")


def _lose(folder: Path) -> None:
    (folder / "config.json").unlink()


def _add(folder: Path) -> None:
    (folder / "code.py").write_text("print('never')")


def _be_of_another_version(folder: Path) -> None:
    (folder / "sha256.json").unlink()


@pytest.mark.parametrize("damage", [_flip, _lose, _add, _be_of_another_version])
def test_damage_is_built_again(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage) -> None:
    folder = built_once(tmp_path / "model", _build)
    assert built_once(folder, lambda _: pytest.fail("built twice")) == folder
    damage(folder)
    built_once(folder, _build)
    assert "building it again" in capsys.readouterr().err
    assert (folder / "deep" / "weights.bin").read_bytes() == b"1234"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "deep", "sha256.json"]


def test_damage_that_cannot_be_deleted_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built_once(tmp_path / "model", _build)
    _flip(folder)

    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("sspa.shared.cache.rmtree", refuse)
    with pytest.raises(UserError, match=r"model: is damaged and cannot be deleted \(Read-only file system\); delete"):
        built_once(folder, _build)


def test_what_a_killed_process_left_in_the_cache_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path))
    left = cache_folder("features") / ".0123456789abcdef.k3_9xyzw.tmp"
    left.mkdir()
    (left / "regions.npy").write_bytes(bytes(1000))
    assert list(cache_folder("features").iterdir()) == []
    shutil.rmtree(tmp_path)
    tmp_path.write_text("in the way")
    with pytest.raises(UserError, match=r"features cannot be created \(Not a directory\); set SSPA_CACHE"):
        cache_folder("features")
