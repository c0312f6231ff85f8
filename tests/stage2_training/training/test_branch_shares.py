"""Shares fitted to val: the best mAP of the whole grid, by scikit-learn's, and everything restored afterwards."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training.branch_shares import best_shares, fitted_shares, shares_in_steps

GENERATOR = np.random.default_rng(0)
TARGETS = (GENERATOR.random((60, 5)) < 0.3).astype(np.int8)
# The first branch knows more than the second, and the third knows nothing.
BRANCHES = np.stack(
    [GENERATOR.random((60, 5)) + strength * TARGETS for strength in (1.0, 0.7, 0.0)], dtype=np.float32
) / np.float32(2)
PROTOCOL = Protocol(name="custom", dataset="", splits="")


def _map(shares: tuple[float, ...]) -> float:
    scores = sum(share * branch for share, branch in zip(shares, BRANCHES, strict=True))
    return float(np.mean([average_precision_score(TARGETS[:, label], scores[:, label]) for label in range(5)]))


def test_the_best_shares_have_the_best_map() -> None:
    in_tenths = [(a / 10, b / 10, (10 - a - b) / 10) for a in range(11) for b in range(11 - a)]

    found = best_shares(BRANCHES, TARGETS, PROTOCOL)

    assert _map(tuple(found)) == pytest.approx(max(map(_map, in_tenths)), abs=1e-6)
    assert found.sum() == pytest.approx(1)
    assert found[0] > found[2]


def test_where_nothing_differs_all_branches_count() -> None:
    same = np.stack([BRANCHES[0]] * 2)

    assert best_shares(same, TARGETS, PROTOCOL).tolist() == [0.5, 0.5]


def test_unknown_cells_decide_nothing() -> None:
    unknown = TARGETS.copy()
    unknown[30:] = -1

    assert (
        best_shares(BRANCHES, unknown, PROTOCOL).tolist()
        == best_shares(BRANCHES[:, :30], TARGETS[:30], PROTOCOL).tolist()
    )


def test_all_shares_of_the_grid() -> None:
    assert {tuple(shares) for shares in shares_in_steps(2, steps=2)} == {(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)}
    assert len(shares_in_steps(3)) == 66


def test_shares_are_fitted_within_the_block_and_restored_after_it(recognizer: Recognizer) -> None:
    head = recognizer.head
    probabilities = {"region": BRANCHES[2], "global": BRANCHES[0], "knowledge": BRANCHES[1], "both": BRANCHES[0]}

    with fitted_shares(head, probabilities, TARGETS, PROTOCOL) as fitted:
        assert head.branch_shares is not None
        region, of_global, knowledge = head.branch_shares.tolist()
        assert of_global > region
        expected = region * BRANCHES[2] + of_global * BRANCHES[0] + knowledge * BRANCHES[1]
        np.testing.assert_allclose(fitted["both"], expected, rtol=1e-5)

    assert torch.equal(head.branch_shares, torch.full((3,), 1 / 3))


def test_a_head_with_one_branch_is_left_alone(recognizer: Recognizer) -> None:
    recognizer.head.branch_shares = None
    probabilities = {"global": BRANCHES[0], "both": BRANCHES[0]}

    with fitted_shares(recognizer.head, probabilities, TARGETS, PROTOCOL) as fitted:
        assert fitted is probabilities
