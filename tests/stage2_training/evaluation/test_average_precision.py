import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sspa.stage2_training.evaluation.average_precision import average_precision


def random_label(seed: int, count: int, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties (few distinct values) and at least one positive."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, distinct, count).astype(np.float32) / distinct
    positive = rng.random(count) < 0.3
    positive[rng.integers(count)] = True
    return scores, positive


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("count", "distinct"), [(1, 1), (7, 3), (200, 10), (200, 100_000)])
def test_non_interpolated_is_scikit_learns(seed: int, count: int, distinct: int) -> None:
    scores, positive = random_label(seed, count, distinct)
    assert average_precision(scores, positive)[0] == pytest.approx(average_precision_score(positive, scores), abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_weights_are_repetitions(seed: int) -> None:
    scores, positive = random_label(seed, 60, 15)
    weights = np.random.default_rng(seed + 100).integers(0, 4, (3, 60)).astype(float)
    for form in ("non-interpolated", "interpolated", "11-point"):
        weighted = average_precision(scores, positive, weights, form)
        for row, value in zip(weights, weighted, strict=True):
            times = row.astype(int)
            assert value == pytest.approx(
                average_precision(scores.repeat(times), positive.repeat(times), form=form)[0], abs=1e-12, nan_ok=True
            )


def reference(scores: np.ndarray, positive: np.ndarray, form: str) -> float:
    """Precision and recall at every threshold, then the literal definition."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        hits = (chosen & positive).sum()
        points.append((hits / positive.sum(), hits / chosen.sum()))
    if form == "11-point":
        levels = [k / 10 for k in range(11)]
        return sum(max(p for r, p in points if r >= level - 1e-9) for level in levels) / 11
    area, before = 0.0, 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - before) * max(p for _, p in points[i:])
        before = recall
    return area


@pytest.mark.parametrize("form", ["interpolated", "11-point"])
@pytest.mark.parametrize("seed", range(20))
def test_interpolated_forms_follow_their_definition(form: str, seed: int) -> None:
    scores, positive = random_label(seed, 80, 25 if seed % 2 else 10_000)
    assert average_precision(scores, positive, form=form)[0] == pytest.approx(
        reference(scores, positive, form), abs=1e-12
    )


def test_by_hand() -> None:
    # Ranks of the positives: 1, 3, 4. Precisions there: 1, 2/3, 3/4.
    scores, positive = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, False, True, True, False])
    assert average_precision(scores, positive)[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert average_precision(scores, positive, form="interpolated")[0] == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)
    # Recalls 0 to 0.3 are reached at the first positive, 0.4 to 1 at the fourth image.
    assert average_precision(scores, positive, form="11-point")[0] == pytest.approx((4 * 1 + 7 * 0.75) / 11)


def test_all_tied_is_the_share_of_positives_whatever_the_order() -> None:
    positive = np.array([True, True, False, False])
    for truth in (positive, positive[::-1]):
        assert average_precision(np.full(4, 0.5), truth)[0] == pytest.approx(0.5)


def test_no_positive_is_nan() -> None:
    assert np.isnan(average_precision(np.array([0.1, 0.2]), np.array([False, False]))[0])
