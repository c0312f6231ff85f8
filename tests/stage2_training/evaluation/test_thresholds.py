"""Tuned thresholds: the best there are with many positives, and close to the common one with few."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_recall_curve

from sspa.stage2_training.evaluation.thresholds import choose_thresholds, tune_each, tune_one

Scores = NDArray[np.float32]
Marks = NDArray[np.int8]


def drawn(seed: int, images: int, rates: tuple[float, ...], shifts: tuple[float, ...]) -> tuple[Scores, Marks]:
    """Marks with these shares of positives, and probabilities whose best threshold differs by label."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((images, len(rates))) < rates).astype(np.int8)
    logits = 2.5 * targets + generator.normal(size=targets.shape) + np.array(shifts)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), targets


def best_f1(scores: Scores, marks: Marks) -> tuple[float, float]:
    """Over every threshold there is, and which one it is."""
    precision, recall, thresholds = precision_recall_curve(marks, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    return float(f1.max()), float(thresholds[f1.argmax()])


def mean_f1(scores: Scores, marks: Marks, thresholds: NDArray[np.float64]) -> float:
    return float(np.mean([f1_score(marks[:, c], scores[:, c] >= value) for c, value in enumerate(thresholds)]))


def test_the_common_threshold_is_the_best_there_is() -> None:
    scores, marks = drawn(0, 80, (0.4, 0.2, 0.5), (-1, 0, 1))
    marks[::7, 1] = -1
    one = tune_one(scores, marks)
    known = marks >= 0
    assert f1_score(marks[known], scores[known] >= one.values[0]) == pytest.approx(
        best_f1(scores[known], marks[known])[0]
    )
    assert len(set(one.values)) == 1
    assert "tuned on val" in one.description


def test_many_positives_have_a_threshold_of_their_own() -> None:
    scores, marks = drawn(1, 4000, (0.4, 0.3), (-2, 1))
    marks[::7, 1] = -1
    each = tune_each(scores, marks)
    for label in range(2):
        known = marks[:, label] >= 0
        own = f1_score(marks[known, label], scores[known, label] >= each.values[label])
        assert own == pytest.approx(best_f1(scores[known, label], marks[known, label])[0], abs=0.002)
    assert each.values[0] < 0.4 < 0.6 < each.values[1]
    assert "tuned on val" in each.description
    assert "tuned on 9 images" in tune_each(scores, marks, "9 images").description


def test_few_positives_are_drawn_to_the_common_threshold() -> None:
    """By hand: in logits, n positives count n, the common threshold counts 4."""
    scores = np.array([[0.9, 0.3], [0.8, 0.2], [0.2, 0.1], [0.1, 0.1]], dtype=np.float32)
    marks = np.array([[1, 1], [1, 0], [0, 0], [0, 0]], dtype=np.int8)
    common = tune_one(scores, marks).values[0]
    logit = np.log([0.5 / 0.5, 0.25 / 0.75, common / (1 - common)])  # halfway between the last hit and the next score
    expected = [(2 * logit[0] + 4 * logit[2]) / 6, (logit[1] + 4 * logit[2]) / 5]
    np.testing.assert_allclose(np.log(1 / (1 / tune_each(scores, marks).values - 1)), expected, rtol=1e-6)


def test_a_label_without_positives_has_the_common_threshold() -> None:
    scores, marks = drawn(2, 60, (0.4, 0.4), (-1, -1))
    marks[:, 1] = 0
    each, one = tune_each(scores, marks), tune_one(scores, marks)
    assert each.values[1] == pytest.approx(one.values[1])
    assert f"the common one ({one.values[0]:.2f}) for 1 without positives" in each.description
    nothing = tune_each(scores, np.zeros_like(marks))
    np.testing.assert_allclose(nothing.values, 0.5)


@pytest.mark.parametrize(("images", "margin"), [(15, 0.02), (60, 0.0)])
def test_on_other_images_they_do_better_than_those_of_each_label_alone_or_of_all(images: int, margin: float) -> None:
    rates, shifts = (0.3, 0.2, 0.1, 0.1, 0.05), (-1.5, -1.0, -0.5, 0.0, 0.5)
    other_scores, other_marks = drawn(99, 4000, rates, shifts)
    found = {"each": 0.0, "one": 0.0, "alone": 0.0}
    for seed in range(20):
        scores, marks = drawn(seed, images, rates, shifts)
        alone = [best_f1(scores[:, c], marks[:, c])[1] if marks[:, c].any() else 0.5 for c in range(5)]
        ways = {kind: choose_thresholds(kind, 0.5, scores, marks).values for kind in ("each", "one")}
        for way, values in {**ways, "alone": np.array(alone)}.items():
            found[way] += mean_f1(other_scores, other_marks, values) / 20
    assert found["each"] > found["alone"] + margin
    assert found["each"] > found["one"]


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.5, 1.0]])
def test_extreme_scores_have_finite_thresholds(scores: list[float]) -> None:
    marks = np.array([[1], [0], [1]], dtype=np.int8)
    values = tune_each(np.array([scores], dtype=np.float32).T, marks).values
    assert np.isfinite(values).all()
    assert ((values >= 0) & (values <= 1)).all()
