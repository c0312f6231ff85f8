from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.dataset import Dataset, Split, with_known_marks
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.runs.records import TaughtRecord
from sspa.stage2_training.runs.taught import TaughtMarks
from sspa.stage2_training.training.teaching import may_be_taught, sure_marks, with_taught_marks


def dataset_of(targets: list[list[int]]) -> Dataset:
    marks = np.array(targets, dtype=np.int8)
    ids = [f"image{row}" for row in range(len(marks))]
    train = Split("train", ids, [Path(f"{key}.png") for key in ids], marks)
    val = Split("val", ["v"], [Path("v.png")], np.array([[-1, 1]], dtype=np.int8))
    labels = LabelSet("two", (Label("cat", "cat"), Label("dog", "dog")))
    return Dataset("own", Path(), labels, get_protocol("custom"), {"train": train, "val": val}, "hash", "")


def test_only_what_is_surer_than_the_limit_is_a_mark() -> None:
    probabilities = np.array([[0.9, 0.75, 0.5], [0.25, 0.1, np.nan]], dtype=np.float32)
    assert sure_marks(probabilities, 0.75).tolist() == [[1, -1, -1], [-1, 0, -1]]
    assert sure_marks(probabilities, 0.75).dtype == np.int8


def test_what_is_known_stays_as_it_is() -> None:
    dataset = dataset_of([[1, -1], [-1, -1], [0, 0]])
    taught = TaughtMarks(
        np.array([[0, 1], [-1, 0], [1, 1]], dtype=np.int8),
        TaughtRecord(teacher="self", weights="", images=3, present=3, absent=2),
    )
    found = with_taught_marks(dataset, taught, repeat=1)
    assert found.splits["train"].targets.tolist() == [[1, 1], [-1, 0], [0, 0]]
    assert found.splits["val"] is dataset.splits["val"]
    assert found.content_hash == dataset.content_hash


def test_what_was_known_before_may_be_repeated_and_what_is_not_known_now_is_left_out() -> None:
    dataset = dataset_of([[-1, -1], [1, -1], [-1, -1], [0, 0]])
    marks = np.array([[-1, 1], [-1, -1], [-1, -1], [-1, -1]], dtype=np.int8)
    about = TaughtRecord(teacher="self", weights="", images=1, present=1, absent=0)
    train = with_taught_marks(dataset, TaughtMarks(marks, about), repeat=2).splits["train"]
    assert list(train.ids) == ["image0", "image1", "image1", "image3", "image3"]
    assert train.targets.tolist() == [[-1, 1], [1, -1], [1, -1], [0, 0], [0, 0]]
    assert list(train.paths) == [Path(f"{key}.png") for key in train.ids]


def test_images_of_which_nothing_is_known_are_left_out_of_training(capfd: pytest.CaptureFixture[str]) -> None:
    dataset = dataset_of([[1, -1], [-1, -1], [0, 0]])
    train = with_known_marks(dataset).splits["train"]
    assert (list(train.ids), train.targets.tolist()) == (["image0", "image2"], [[1, -1], [0, 0]])
    assert list(train.paths) == [Path("image0.png"), Path("image2.png")]
    # By which their features are found.
    assert train.within == (dataset.splits["train"],)
    assert "left out of training, since nothing is known of them: 1 of 3 images" in capfd.readouterr().err
    whole = dataset_of([[1, -1]])
    assert with_known_marks(whole) is whole


def test_labels_that_are_kept_from_training_are_not_taught() -> None:
    dataset = dataset_of([[1, -1], [-1, -1], [0, -1]])
    assert may_be_taught(dataset).tolist() == [[False, True], [True, True], [False, True]]
    unseen = replace(dataset, unseen=(dataset.labels.keys[1],))
    assert may_be_taught(unseen).tolist() == [[False, False], [True, False], [False, False]]
