import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.label_sets import read_label_set
from sspa.stage2_training.data.adapters import get_adapter
from sspa.stage2_training.data.checking import check_data
from sspa.stage2_training.data.custom.reading import read_custom
from sspa.stage2_training.data.dataset import load_dataset, load_manifest
from sspa.stage2_training.data.manifest import write_manifest
from sspa.stage2_training.data.sharding import write_shards
from sspa.stage2_training.data.splitting import Fold
from sspa.stage2_training.data.subsets import Subset

KEYS = read_label_set("voc").keys
CAT, DOG = KEYS.index("cat"), KEYS.index("dog")


def write_devkit(root: Path, year: str = "2007", lists: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """Four images in each list; all but the fourth, which has only a difficult dog, have a cat."""
    base = root / "VOCdevkit" / f"VOC{year}"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (base / folder).mkdir(parents=True)
    for number, name in enumerate(lists):
        ids = [f"{number:03}{k:03}" for k in range(4)]
        (base / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(ids) + "\n")
        for key in KEYS:
            marks = {"cat": (1, 1, -1, -1), "dog": (-1, 1, 1, 0)}.get(key, (-1, -1, -1, -1))
            lines = [f"{i} {mark:2d}" for i, mark in zip(ids, marks, strict=True)]
            (base / "ImageSets/Main" / f"{key}_{name}.txt").write_text("\n".join(lines) + "\n")
        for i in ids:
            Image.new("RGB", (6, 5)).save(base / "JPEGImages" / f"{i}.jpg")
    return base


@pytest.mark.parametrize("below", [".", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_reads_the_devkit_from_any_of_its_folders(tmp_path: Path, below: str) -> None:
    base = write_devkit(tmp_path)
    dataset = load_dataset("voc2007", tmp_path / below)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 4, "val": 4, "test": 4}
    test = dataset.splits["test"]
    assert test.ids[0] == "002000"
    assert test.paths[0] == base / "JPEGImages" / "002000.jpg"
    assert test.targets[:, CAT].tolist() == [1, 1, 0, 0]
    assert dataset.labels.keys == KEYS
    assert "cut" in dataset.note


@pytest.mark.parametrize(
    ("protocol", "mark"),
    [("voc2007-ignore-difficult", -1), ("voc2007-dualcoop", 0), ("voc2007-positive-difficult", 1)],
)
def test_only_difficult_objects_follow_the_protocol(tmp_path: Path, protocol: str, mark: int) -> None:
    write_devkit(tmp_path)
    dataset = load_dataset("voc2007", tmp_path, protocol)
    assert dataset.protocol.name == protocol
    assert dataset.splits["test"].targets[:, DOG].tolist() == [0, 1, 1, mark]


def test_held_out_part_is_drawn_from_training_only(tmp_path: Path) -> None:
    write_devkit(tmp_path)
    dataset = load_dataset("voc2007", tmp_path, val_fraction=0.25)
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert (sizes["train"] + sizes["val"], sizes["test"]) == (8, 4)
    assert sizes["val"] in (1, 2)
    assert dataset.splits["test"].ids == load_dataset("voc2007", tmp_path).splits["test"].ids
    assert dataset.content_hash != load_dataset("voc2007", tmp_path).content_hash


def test_a_fold_is_made_of_train_and_val_and_named(tmp_path: Path) -> None:
    write_devkit(tmp_path)
    whole = load_dataset("voc2007", tmp_path).splits
    fold = load_dataset("voc2007", tmp_path, subset=Subset(shots=1), fold=Fold(2, 2))
    assert fold.name == "voc2007-fold-2-of-2"
    assert set(fold.splits["test"].ids) < {*whole["train"].ids, *whole["val"].ids}
    for split in fold.splits.values():
        assert [each.ids for each in split.within] == [whole["train"].ids, whole["val"].ids]


def test_a_drawn_val_and_what_is_left_of_train_know_where_they_were_drawn_from(tmp_path: Path) -> None:
    write_devkit(tmp_path)
    whole = load_dataset("voc2007", tmp_path).splits
    drawn = load_dataset("voc2007", tmp_path, val_fraction=0.5).splits
    assert drawn["val"].within is drawn["train"].within
    assert [each.ids for each in drawn["val"].within] == [whole["train"].ids, whole["val"].ids]
    assert not any(split.within for split in (drawn["test"], *whole.values()))


@pytest.mark.parametrize("how", [{"val_fraction": 0.5}, {"fold": Fold(1, 2)}, {"subset": Subset(shots=1)}])
def test_what_splits_were_drawn_from_lacks_images_that_are_left_out(tmp_path: Path, how: dict[str, Any]) -> None:
    write_devkit(tmp_path)
    gone = load_dataset("voc2007", tmp_path).splits["train"].paths[0]
    gone.unlink()
    drawn = load_dataset("voc2007", tmp_path, leave_out_unreadable=True, **how).splits["train"]
    sources = [path for each in drawn.within for path in each.paths]
    assert gone not in sources
    assert set(drawn.paths) <= set(sources)


def test_few_shots_are_drawn_from_training_and_know_it(tmp_path: Path) -> None:
    write_devkit(tmp_path)
    whole = load_dataset("voc2007", tmp_path)
    few = load_dataset("voc2007", tmp_path, subset=Subset(shots=1, unseen=("bus",)))
    train = few.splits["train"]
    assert 1 <= len(train) <= 2
    assert (train.targets[:, [CAT, DOG]] == 1).any(axis=0).all()
    assert train.within[0].ids == whole.splits["train"].ids
    assert few.splits["test"].ids == whole.splits["test"].ids
    assert few.unseen == ("bus",)
    assert few.note.startswith(whole.note)
    assert few.content_hash != whole.content_hash


def test_wrong_roots_and_half_unpacked_archives(tmp_path: Path) -> None:
    base = write_devkit(tmp_path)
    with pytest.raises(UserError, match="needs the folder with the data"):
        load_dataset("voc2007")
    with pytest.raises(UserError, match="there is no such folder"):
        load_dataset("voc2007", tmp_path / "none")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="holds no PASCAL VOC 2007"):
        load_dataset("voc2007", tmp_path / "other")
    cat_list = base / "ImageSets/Main/cat_test.txt"
    whole = cat_list.read_text()
    cat_list.write_text(whole.replace("002003 -1\n", ""))
    with pytest.raises(UserError, match=r"cat_test\.txt: says nothing about image '002003'"):
        load_dataset("voc2007", tmp_path)
    cat_list.write_text(whole.replace("002003 -1", "002003 7"))
    with pytest.raises(UserError, match=r"cat_test\.txt, line 4"):
        load_dataset("voc2007", tmp_path)
    cat_list.unlink()
    with pytest.raises(UserError, match=r"cat_test\.txt: cannot be read .* unpacked completely"):
        load_dataset("voc2007", tmp_path)


def test_a_prepared_manifest_finds_its_images_from_any_folder_and_in_shards(tmp_path: Path) -> None:
    write_devkit(tmp_path / "kit")
    manifest, root = load_manifest("voc2007", tmp_path / "kit", None)
    write_manifest(manifest, tmp_path / "voc.parquet")
    for given in (tmp_path / "kit", root):
        dataset = load_dataset(str(tmp_path / "voc.parquet"), given)
        assert dataset.splits["test"].paths[0] == root / "JPEGImages" / "002000.jpg"
    write_shards(manifest, root, tmp_path / "shards", per_shard=3)
    sharded = load_dataset(str(tmp_path / "shards" / "manifest.parquet"), tmp_path / "shards")
    assert sharded.splits["test"].ids == dataset.splits["test"].ids


def test_voc2012_is_measured_on_its_val_list(tmp_path: Path) -> None:
    write_devkit(tmp_path, "2012", ("train", "val"))
    dataset = load_dataset("voc2012", tmp_path, val_fraction=0.5)
    assert dataset.splits["test"].ids == ("001000", "001001", "001002", "001003")
    assert {key[:3] for name in ("train", "val") for key in dataset.splits[name].ids} == {"000"}
    assert dataset.protocol.name == "voc2012-val"


def test_check_compares_the_class_files_with_the_annotations(tmp_path: Path) -> None:
    base = write_devkit(tmp_path)
    seen = {0: ["cat"], 1: ["cat", "dog"], 2: ["dog"], 3: ["dog difficult", "dog difficult"]}
    for number in range(3):
        for k, names in seen.items():
            items = "".join(
                f"<object><name>{name.split()[0]}</name><difficult>{int('difficult' in name)}</difficult></object>"
                for name in names
            )
            (base / "Annotations" / f"{number:03}{k:03}.xml").write_text(f"<annotation>{items}</annotation>")
    adapter = get_adapter("voc2007")
    assert check_data(adapter, base, None).problems == ()
    (base / "Annotations" / "002003.xml").write_text("<annotation><object><name>dog</name></object></annotation>")
    (base / "Annotations" / "002000.xml").write_text("<annotation>")
    first, second = check_data(adapter, base, None).problems
    assert "002000.xml: cannot be read" in first
    assert second.endswith("002003.xml: the objects differ from ImageSets/Main")


@pytest.fixture
def real_root() -> Path:
    root = Path(os.environ.get("SSPA_VOC2007_ROOT", "../shared/data/VOCdevkit"))
    if not root.is_dir():
        pytest.skip("the VOC2007 photos are not here: set SSPA_VOC2007_ROOT")
    return root


@pytest.mark.real_data
def test_the_real_annotations_read_as_ones_own_data_are_the_same(real_root: Path) -> None:
    official, root = load_manifest("voc2007", real_root, "voc2007-positive-difficult")
    own = read_custom("mine", root, label_set=official.labels)
    marks = {
        path: (split, target.tobytes()) for path, split, target in zip(own.paths, own.splits, own.targets, strict=True)
    }
    assert len(marks) == len(official.ids)
    for path, split, target in zip(official.paths, official.splits, official.targets, strict=True):
        assert marks[path] == (split, target.tobytes()), path


@pytest.mark.real_data
def test_the_real_photos_have_the_counts_of_their_devkit(real_root: Path) -> None:
    dataset = load_dataset("voc2007", real_root)
    if len(dataset.splits["test"]) != 1000:
        pytest.skip("these are not the 3,000 photos of ../shared")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 1600, "val": 400, "test": 1000}
    assert (dataset.splits["test"].targets == -1).sum() == 135
    positives = np.concatenate([split.targets for split in dataset.splits.values()]) == 1
    assert positives[:, KEYS.index("person")].sum() == 674 + 167 + 391
    assert all(path.is_file() for split in dataset.splits.values() for path in split.paths)


def test_a_copy_with_only_the_test_list_can_be_evaluated(tmp_path: Path) -> None:
    write_devkit(tmp_path / "whole")
    write_devkit(tmp_path / "alone", lists=("test",))
    whole, alone = (load_dataset("voc2007", tmp_path / name) for name in ("whole", "alone"))
    assert list(alone.splits) == ["test"]
    assert (alone.splits["test"].targets == whole.splits["test"].targets).all()
    assert "0 of 5,011 trainval images" in alone.note


def test_a_copy_without_test_can_be_trained_on_but_not_one_without_val(tmp_path: Path) -> None:
    lists = write_devkit(tmp_path, lists=("train", "val")) / "ImageSets" / "Main"
    assert list(load_dataset("voc2007", tmp_path).splits) == ["train", "val"]
    (lists / "val.txt").unlink()
    with pytest.raises(UserError, match=r"val\.txt: cannot be read"):
        load_dataset("voc2007", tmp_path)
