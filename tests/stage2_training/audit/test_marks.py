from importlib.util import find_spec

import numpy as np
import pytest
from scipy.stats import norm

from sspa.stage2_training.audit.marks import audit_labels, mark_qualities, probably_wrong

pytestmark = pytest.mark.skipif(find_spec("cleanlab") is None, reason="cleanlab is not installed (extra audit)")


def planted(flipped: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a good model, given marks, and which of these were flipped; two labels, 2,000 images."""
    generator = np.random.default_rng(0)
    truth = (generator.random((2000, 2)) < [0.3, 0.1]).astype(np.int8)
    probabilities = norm.cdf(generator.normal(4 * truth - 2, 1))
    flips = generator.random(truth.shape) < flipped
    return probabilities, np.where(flips, 1 - truth, truth).astype(np.int8), flips


def test_quality_is_the_probability_of_the_mark_as_given() -> None:
    targets = np.array([[1, 0, -1]], dtype=np.int8)
    np.testing.assert_allclose(mark_qualities(np.array([[0.9, 0.9, 0.9]]), targets), [[0.9, 0.1, np.nan]])


def test_flipped_marks_are_found() -> None:
    probabilities, targets, flips = planted(0.05)
    wrong = probably_wrong(probabilities, targets)
    assert wrong[flips].mean() > 0.7
    assert flips[wrong].mean() > 0.9


def test_counts_are_those_of_the_marks_with_an_interval_around_them() -> None:
    probabilities, targets, _ = planted(0.05)
    wrong = probably_wrong(probabilities, targets)
    for label, audit in enumerate(audit_labels(targets, wrong)):
        for mark, given, expected in (
            (1, audit.present, audit.wrongly_present),
            (0, audit.absent, audit.wrongly_absent),
        ):
            assert given == (targets[:, label] == mark).sum()
            assert expected is not None
            assert expected.count == (wrong[:, label] & (targets[:, label] == mark)).sum()
            assert 0 <= expected.low <= expected.count <= expected.high <= given


def test_unknown_marks_are_neither_judged_nor_counted() -> None:
    probabilities, targets, _ = planted(0.05)
    half = targets.copy()
    half[::2] = -1
    wrong = probably_wrong(probabilities, half)
    assert not wrong[::2].any()
    np.testing.assert_array_equal(wrong[1::2], probably_wrong(probabilities[1::2], targets[1::2]))
    assert audit_labels(half, wrong)[0].present == (half[:, 0] == 1).sum()


@pytest.mark.parametrize("mark", [0, 1, -1])
def test_a_label_with_one_kind_of_mark_says_nothing(mark: int) -> None:
    targets = np.full((30, 1), mark, dtype=np.int8)
    wrong = probably_wrong(np.linspace(0, 1, 30)[:, None], targets)
    assert not wrong.any()
    (audit,) = audit_labels(targets, wrong)
    assert audit.wrongly_present is None
    assert audit.wrongly_absent is None
