"""The cache's entries: what they are, and which are deleted first."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sspa.stage2_training.cli.main import app
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.features.cache_entries import cache_entries, delete_orphaned, make_room, mark_used
from sspa.stage2_training.features.kept_features import FeatureCache

from ..model.small_models import small_backbone

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the features of two splits, `test` used last, and an entry of another version."""
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    backbone = small_backbone(tmp_path / "backbone")
    folder = tmp_path / "cache" / "features"
    for number, name in enumerate(("train", "test")):
        (tmp_path / "data" / name).mkdir(parents=True)
        paths = tuple(tmp_path / "data" / name / f"{image}.png" for image in range(2))
        for image, path in enumerate(paths):
            Image.new("RGB", (40, 50), (number, image, 0)).save(path)
        split = Split(name, ("a", "b"), paths, np.zeros((2, 1), dtype=np.int8))
        FeatureCache(backbone, CPU, workers=0).kept([split], "plain")
        (entry,) = (entry for entry in folder.iterdir() if entry.stat().st_mtime > 1000)
        os.utime(entry, (10 * number, 10 * number))
    (folder / "old").mkdir()
    (folder / "old" / "pooled.npy").write_bytes(bytes(1000))
    return folder


def _names() -> list[str]:
    return [entry.about.split if entry.about else "old" for entry in cache_entries()]


def test_entries_say_what_they_are(cache: Path, tmp_path: Path) -> None:
    entries = {entry.about.split: entry for entry in cache_entries() if entry.about}
    about = entries["test"].about

    assert about is not None
    assert (about.images, about.view, about.images_in) == (2, "plain", str(tmp_path / "data" / "test"))
    assert "libraries" in about.computed_on
    files = (cache / entries["test"].key).iterdir()
    assert entries["test"].size_bytes == sum(file.stat().st_size for file in files)


@pytest.mark.usefixtures("cache")
def test_entries_of_other_versions_go_first_and_then_what_was_not_used_for_longest() -> None:
    assert _names() == ["old", "test", "train"]
    size = {entry.about.split if entry.about else "old": entry.size_bytes for entry in cache_entries()}

    assert make_room(sum(size.values())) == []
    assert [entry.about for entry in make_room(sum(size.values()) - 1)] == [None]
    assert _names() == ["test", "train"]
    assert len(make_room(size["test"])) == 1
    assert _names() == ["test"]
    assert len(make_room(0)) == 1
    assert _names() == []


def test_an_entry_that_is_used_again_goes_last(cache: Path, tmp_path: Path) -> None:
    backbone = small_backbone(tmp_path / "backbone")
    paths = tuple(tmp_path / "data" / "train" / f"{image}.png" for image in range(2))
    split = Split("x", ("a", "b"), paths, np.zeros((2, 1), dtype=np.int8))
    FeatureCache(backbone, CPU, workers=0).kept([split], "plain")

    assert _names().index("train") < _names().index("test")
    assert len(list(cache.iterdir())) == 3


@pytest.mark.usefixtures("cache")
def test_the_command_lists_and_makes_room() -> None:
    listed = CliRunner().invoke(app, ["cache"])
    assert listed.exit_code == 0
    assert "3 entries" in listed.stderr
    assert "of another version of sspa" in listed.stdout

    emptied = CliRunner().invoke(app, ["cache", "--keep", "0", "--json"])
    assert "deleted 3 entries" in emptied.stderr
    assert json.loads(emptied.stdout) == []


def test_entries_know_the_runs_that_used_them(cache: Path, tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("first", "second")]
    entries = {entry.about.split: cache / entry.key for entry in cache_entries() if entry.about}
    for run in runs:
        run.mkdir()
        for _ in range(2):
            mark_used(entries["train"], run)
    mark_used(entries["test"], runs[0])
    with (entries["test"] / "runs.jsonl").open("a") as file:
        file.write('"half a li')
    used = {entry.about.split: entry.runs for entry in cache_entries() if entry.about}
    assert used == {"train": tuple(map(str, runs)), "test": (str(runs[0]),)}
    assert delete_orphaned() == []

    listed = CliRunner().invoke(app, ["cache", "--run", str(runs[1]), "--json"])
    assert [entry["runs"] for entry in json.loads(listed.stdout)] == [[str(run) for run in runs]]
    assert "second and 1 more" in CliRunner().invoke(app, ["cache"], env={"COLUMNS": "300"}).stdout
    runs[0].rmdir()
    assert "runs that are gone" in CliRunner().invoke(app, ["cache"], env={"COLUMNS": "300"}).stdout
    assert "deleted 1 entries" in CliRunner().invoke(app, ["cache", "--orphaned"]).stderr
    # What no run has used may be a review's.
    assert sorted(_names()) == ["old", "train"]
