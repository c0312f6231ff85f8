"""Which images the arguments of `sspa-train predict` name."""

import io
from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.prediction.image_paths import find_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", "below/c.webp", "below/[d].jpeg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_means_every_image_below_it_by_name(folder: Path) -> None:
    found = [str(path.relative_to(folder)) for path in find_images([str(folder)])]
    assert found == ["a.png", "b.JPG", "below/[d].jpeg", "below/c.webp"]


def test_patterns_files_and_lists_each_image_once(folder: Path) -> None:
    assert find_images([f"{folder}/*.png", f"{folder}/**/*.webp"]) == (folder / "a.png", folder / "below/c.webp")
    # A file is meant although its name looks like a pattern, and whatever its ending.
    named = [str(folder / "below/[d].jpeg"), str(folder / "notes.txt")]
    assert find_images(named) == tuple(map(Path, named))
    listed = io.StringIO(f"{folder / 'a.png'}\n\n{folder / 'b.JPG'}\r\n")
    assert find_images([str(folder / "b.JPG"), "-"], listed) == (folder / "b.JPG", folder / "a.png")


@pytest.mark.parametrize(
    ("argument", "message"),
    [("none*.png", "no images there"), ("none.png", "no such image or folder"), ("-", "standard input: no ima")],
)
def test_what_names_nothing(folder: Path, argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_images([argument if argument == "-" else f"{folder}/{argument}"], io.StringIO(""))
