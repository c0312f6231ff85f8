"""What is said of a finished run."""

import numpy as np

from sspa.stage2_training.evaluation.metrics import Metrics, evaluate_scores
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.training.noteworthy import noteworthy

KEYS = tuple("abcdefgh")
TARGETS = np.tile(np.array([[1, 0, 1, 0]], dtype=np.int8).T, (1, len(KEYS)))


def metrics(wrong: str = "", absent: str = "") -> Metrics:
    """Perfect scores, but for the labels `wrong` (the opposite) and `absent` (without a positive)."""
    targets = TARGETS.copy()
    targets[:, [KEYS.index(key) for key in absent]] = 0
    scores = np.where(TARGETS == 1, 0.9, 0.1)
    scores[:, [KEYS.index(key) for key in wrong]] = np.where(TARGETS == 1, 0.1, 0.9)[:, : len(wrong)]
    return evaluate_scores(scores.astype(np.float32), targets, KEYS, get_protocol("custom"))


def test_nothing_is_said_where_nothing_is_odd() -> None:
    assert noteworthy(metrics("a"), metrics(), metrics(), "test", 100) == []


def test_labels_that_training_made_worse_are_named_with_both_figures() -> None:
    (line,) = noteworthy(metrics(), metrics("b"), metrics(), "test", 100)
    # Both positives share the last rank, where half of the images are positive.
    assert "lowered the AP of b (100 to 50)" in line
    (line,) = noteworthy(metrics(), metrics("abcdefg"), metrics(), "test", 100)
    assert "and 2 more labels" in line


def test_labels_without_images_are_named_per_split() -> None:
    assert noteworthy(metrics(), metrics(absent="c"), metrics(absent="d"), "test", 100) == [
        "val has no image with d: their tuned threshold is the common one",
        "test has no image with c: mAP is without them",
    ]
    assert len(noteworthy(metrics(), metrics(absent="c"), metrics(absent="c"), "val", 100)) == 1


def test_figures_of_few_images_are_called_rough() -> None:
    (line,) = noteworthy(metrics(), metrics(), metrics(), "test", 12)
    assert line.startswith("test has only 12 images: its figures are rough")
