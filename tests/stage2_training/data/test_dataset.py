"""Splits that become part of train, and parts of train that become test."""

from pathlib import Path

import numpy as np
import pytest

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.dataset import Dataset, Split, rows_of_split, with_fold_as_test, with_splits_in_train
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.data.splitting import Fold
from sspa.stage2_training.evaluation.protocols import get_protocol


def _split(name: str, count: int) -> Split:
    ids = [f"{name}{row}" for row in range(count)]
    return Split(name, ids, [Path(f"{one}.jpg") for one in ids], np.full((count, 1), count, dtype=np.int8))


def test_splits_become_part_of_train() -> None:
    whole, test = _split("train", 5), _split("test", 2)
    train, val = (rows_of_split(whole, np.array(rows)) for rows in ([0, 2, 3], [4, 1]))
    labels = LabelSet("animals", (Label("cat", "cat"),))
    splits = {"train": train, "val": val, "test": test}
    dataset = Dataset("pets", Path("pets"), labels, get_protocol("custom"), splits, "hash", "")

    joined = with_splits_in_train(dataset, ["val", "test"])
    assert list(joined.splits) == ["train"]
    found = joined.split("train")
    assert found.ids == ["train0", "train2", "train3", "train4", "train1", "test0", "test1"]
    assert [path.stem for path in found.paths] == found.ids
    assert found.targets.ravel().tolist() == [5] * 5 + [2] * 2
    # Features are found among those of the splits that the images came from, each named once.
    assert found.within == (whole, test)

    kept = with_splits_in_train(dataset, ["val"])
    assert (list(kept.splits), kept.split("test")) == (["train", "test"], test)
    assert (kept.measured, joined.content_hash) == ("test", "hash")


@pytest.mark.parametrize("grouped", [False, True])
def test_a_fold_of_train_becomes_test(grouped: bool) -> None:
    labels = LabelSet("animals", (Label("cat", "cat"),))
    ids, marks = [f"image{row}" for row in range(30)], np.array([[1], [0], [-1]] * 10, dtype=np.int8)
    texts = Texts(ids)
    groups = Texts([f"burst{row // 6}" for row in range(30)] if grouped else [])
    splits = Texts(["train"] * 20 + ["test"] * 10)
    manifest = Manifest("pets", labels, get_protocol("custom"), "", texts, texts, splits, marks, groups)
    # In another order than the manifest, and without some of its rows.
    rows = np.random.default_rng(0).permutation(30)[:27]
    train = Split("train", [ids[row] for row in rows], [Path(ids[row]) for row in rows], marks[rows])
    own = _split("test", 2)
    dataset = Dataset("pets", Path("pets"), labels, manifest.protocol, {"train": train, "test": own}, "hash", "")

    tested: list[str] = []
    for number in (1, 2, 3):
        found = with_fold_as_test(dataset, manifest, Fold(number, 3))
        kept, test = found.split("train"), found.split("test")
        assert sorted([*kept.ids, *test.ids]) == sorted(train.ids)
        assert test.name == "test"
        assert (test.targets >= 0).all()
        assert [path.name for path in test.paths] == test.ids
        if grouped:
            bursts = [{ids.index(id_) // 6 for id_ in part.ids if marks[ids.index(id_)] >= 0} for part in (kept, test)]
            assert bursts[0].isdisjoint(bursts[1])
        tested += test.ids
    few = 6 if grouped else 31
    with pytest.raises(UserError, match=f"do not make {few} folds; ask for fewer"):
        with_fold_as_test(dataset, manifest, Fold(1, few))
    # Each of which something is known, once.
    assert sorted(tested) == sorted(id_ for id_, mark in zip(train.ids, train.targets, strict=True) if mark >= 0)
