"""Splits that become part of train."""

from pathlib import Path

import numpy as np

from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.dataset import Dataset, Split, rows_of_split, with_splits_in_train
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
