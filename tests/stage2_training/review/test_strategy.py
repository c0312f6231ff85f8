"""What is asked next, against plain loops and cases with one right answer."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sspa.stage2_training.review.strategy import AtRandom, MostDoubtfulFirst, RareLabelsFirst


def unknown(photos: int, labels: int) -> NDArray[np.int8]:
    return np.full((photos, labels), -1, dtype=np.int8)


def pool(photos: int = 60, labels: int = 4, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(photos, 8)).astype(np.float32), draw.uniform(size=(photos, labels)).astype(np.float32)


def test_the_first_photo_equals_a_loop() -> None:
    pooled, probabilities = pool()
    targets, answered = unknown(60, 4), np.zeros(60, dtype=bool)
    targets[5], answered[5] = [1, 1, 0, 1], True  # so that label 2 is the rarest
    (row, why), *_ = RareLabelsFirst(pooled, random_every=0).choose(probabilities, targets, answered, 3)
    assert why == "useful"
    unit = pooled - pooled.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)

    def weight(photo: int) -> float:
        return 1.0 if probabilities[photo, 2] > 0.3 else 0.1 * probabilities[photo, 2]

    def gain(photo: int) -> float:
        total = 0.0
        for other in range(60):
            before = max(0.0, float(unit[5] @ unit[other]))
            total += weight(other) * max(0.0, max(0.0, float(unit[photo] @ unit[other])) - before)
        return total * weight(photo)

    assert row == max((photo for photo in range(60) if photo != 5), key=gain)


def test_rare_labels_are_asked_for_until_they_are_as_frequent() -> None:
    pooled, _ = pool(100, 2)
    probabilities = np.tile(np.array([[0.9, 0.01]], np.float32), (100, 1))
    probabilities[::10] = [0.01, 0.9]
    chosen = RareLabelsFirst(pooled, random_every=0).choose(probabilities, unknown(100, 2), np.zeros(100, bool), 10)
    rare = sum(row % 10 == 0 for row, _ in chosen)
    assert rare == 5  # half, where a tenth of the photos show it


def test_a_fixed_share_is_drawn_at_random_over_several_calls() -> None:
    pooled, probabilities = pool()
    strategy = RareLabelsFirst(pooled, random_every=5)
    answered, why = np.zeros(60, dtype=bool), []
    targets = unknown(60, 4)
    for _ in range(30):
        ((row, chosen),) = strategy.choose(probabilities, targets, answered, 1)
        answered[row], targets[row] = True, 0
        why.append(chosen)
    assert [place for place, chosen in enumerate(why) if chosen == "random"] == [4, 9, 14, 19, 24, 29]


@pytest.mark.parametrize("strategy", [RareLabelsFirst(pool()[0]), AtRandom(), MostDoubtfulFirst(unknown(60, 4))])
def test_answered_photos_are_never_chosen_and_all_others_once(strategy: AtRandom) -> None:
    _, probabilities = pool()
    answered = np.arange(60) % 3 == 0
    chosen = [row for row, _ in strategy.choose(probabilities, unknown(60, 4), answered, 100)]
    assert sorted(chosen) == [row for row in range(60) if row % 3]
    assert [row for row, _ in strategy.choose(probabilities, unknown(60, 4), answered, 100)] == chosen


def test_a_large_pool_is_represented_by_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sspa.stage2_training.review.strategy._SIMILARITIES", 600)
    pooled, probabilities = pool()
    strategy = RareLabelsFirst(pooled)
    assert strategy._similar.shape == (60, 10)
    assert len(strategy.choose(probabilities, unknown(60, 4), np.zeros(60, bool), 60)) == 60


def test_doubtful_marks_come_first() -> None:
    given = np.array([[1, 0], [1, -1], [0, 0], [-1, -1]], np.int8)
    probabilities = np.array([[0.9, 0.2], [0.1, 0.9], [0.3, 0.6], [0.5, 0.5]], np.float32)
    chosen = MostDoubtfulFirst(given).choose(probabilities, given, np.zeros(4, bool), 4)
    # The worst marks are trusted by 0.8, 0.1, 0.4 and, where nothing is given, wholly.
    assert chosen == [(1, "check"), (2, "check"), (0, "check"), (3, "check")]
    audited = MostDoubtfulFirst(given, np.array([0.2, 1.0, 1.0, 0.1]))
    assert [row for row, _ in audited.choose(probabilities, given, np.zeros(4, bool), 2)] == [3, 0]
