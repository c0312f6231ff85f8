"""The report's table of labels."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sspa.stage2_training.report.label_rows import label_rows

KEYS = ("cat", "dog", "cow", "emu")
#                    cat dog cow emu
TARGETS = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], dtype=np.int8)
SCORES = np.array([[0.9, 0.8, 0.1, 0.2], [0.4, 0.7, 0.2, 0.1], [0.6, 0.9, 0.1, 0.1], [0.1, 0.9, 0.9, 0.9]])


def result(trained: dict[str, float], untrained: dict[str, float]) -> Any:
    both = (SimpleNamespace(per_class=figures) for figures in (trained, untrained))
    return SimpleNamespace(test={"both": next(both)}, untrained_test={"both": next(both)})


def test_every_figure_against_counting_by_hand() -> None:
    trained, untrained = {"cat": 0.9, "dog": 0.8, "cow": 0.5}, {"cat": 0.5, "dog": 0.81, "cow": 0.5}
    texts = {key: key.upper() for key in KEYS}
    rows = label_rows(texts, KEYS, result(trained, untrained), dict.fromkeys(KEYS, 0.5), SCORES, TARGETS)
    assert [row.text for row in rows] == ["COW", "DOG", "CAT", "EMU"]
    cow, dog, cat, emu = rows
    assert (cat.positives, cat.ap, cat.untrained, cat.verdict) == (2, pytest.approx(90), pytest.approx(50), "good")
    assert (cat.precision, cat.recall) == (50, 50)  # images 0 and 2 are predicted, 0 and 1 have it
    assert dog.precision == pytest.approx(200 / 3)  # image 2 is unknown: 0, 1 and 3 are predicted, 0 and 3 have it
    assert (dog.recall, dog.verdict) == (100, "")
    assert (cow.missed, cow.verdict, cow.recall, cow.precision) == (True, "bad", 0, 0)
    assert emu.positives == 0
    assert np.isnan([emu.ap, emu.recall, emu.precision]).all()
    assert (emu.missed, emu.verdict) == (False, "")


def test_a_label_that_training_made_worse_is_marked() -> None:
    figures = result({"cat": 0.5}, {"cat": 0.6})
    (row,) = label_rows({"cat": "cat"}, ("cat",), figures, {"cat": 0.3}, SCORES[:, :1], TARGETS[:, :1])
    assert row.verdict == "bad"
    assert not row.missed
