"""Biases fitted to val: the minimum of binary cross-entropy, and everything restored afterwards."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from sspa.stage2_training.model.loss_options import AslOptions, TwoWayOptions
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training.logit_bias import best_shift, fitted_biases

LOGITS = np.random.default_rng(0).normal(2.0, 1.5, (40, 5))
TARGETS = (np.random.default_rng(1).random((40, 5)) < 0.2).astype(np.int8)
PROBABILITIES = expit(LOGITS).astype(np.float32)


def _cross_entropy(shift: float) -> float:
    p = expit(LOGITS + shift)
    known = TARGETS >= 0
    return float(-np.where(TARGETS == 1, np.log(p), np.log(1 - p))[known].mean())


def test_the_best_shift_has_the_least_cross_entropy() -> None:
    shift = best_shift(PROBABILITIES, TARGETS)

    assert _cross_entropy(shift) < min(_cross_entropy(shift + 0.01), _cross_entropy(shift - 0.01))


def test_unknown_cells_decide_nothing() -> None:
    unknown = TARGETS.copy()
    unknown[20:] = -1

    assert best_shift(PROBABILITIES, unknown) == pytest.approx(best_shift(PROBABILITIES[:20], TARGETS[:20]))


@pytest.mark.parametrize("value", [0, 1, -1])
def test_without_two_kinds_of_cells_there_is_nothing_to_fit(value: int) -> None:
    assert best_shift(PROBABILITIES, np.full_like(TARGETS, value)) == 0.0


def test_biases_are_fitted_within_the_block_and_restored_after_it(recognizer: Recognizer) -> None:
    head = recognizer.head
    before = {branch: bias.detach().clone() for branch, bias in head.logit_biases().items()}
    probabilities = dict.fromkeys(("region", "global", "knowledge", "both"), PROBABILITIES)

    with fitted_biases(head, TwoWayOptions(), probabilities, TARGETS) as fitted:
        shifts = {branch: float((bias - before[branch]).detach()) for branch, bias in head.logit_biases().items()}
        assert shifts == pytest.approx(
            dict.fromkeys(("region", "global", "knowledge"), best_shift(PROBABILITIES, TARGETS)), abs=1e-6
        )
        assert float(fitted["both"].mean()) == pytest.approx(TARGETS.mean(), abs=1e-4)
        np.testing.assert_allclose(fitted["region"], expit(LOGITS + shifts["region"]), atol=1e-5)

    assert all(torch.equal(bias, before[branch]) for branch, bias in head.logit_biases().items())


def test_a_loss_that_fits_biases_is_left_alone(recognizer: Recognizer) -> None:
    with fitted_biases(recognizer.head, AslOptions(), {"both": PROBABILITIES}, TARGETS) as fitted:
        assert fitted["both"] is PROBABILITIES
