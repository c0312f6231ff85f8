"""Shares fitted to val: those of the best mAPs of the grid, by scikit-learn, and everything restored afterwards."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score

from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.model.options import Averaged
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training.branch_shares import fitted_shares, fitting_shares, shares_in_steps

GENERATOR = np.random.default_rng(0)
TARGETS = (GENERATOR.random((60, 5)) < 0.3).astype(np.int8)
# The first branch knows less than the second, and the third knows nothing.
BRANCHES = {
    name: (GENERATOR.random((60, 5)) + strength * TARGETS).astype(np.float32) / 2
    for name, strength in {"region": 0.7, "global": 1.0, "knowledge": 0.0}.items()
}
PROTOCOL = Protocol(name="custom", dataset="", splits="")
IN_FIFTHS = [(a / 5, b / 5, (5 - a - b) / 5) for a in range(6) for b in range(6 - a)]


def _map(shares: tuple[float, ...], averaged: str) -> float:
    branches = [logit(branch.astype(np.float64)) if averaged == "logits" else branch for branch in BRANCHES.values()]
    scores = sum(share * branch for share, branch in zip(shares, branches, strict=True))
    return float(np.mean([average_precision_score(TARGETS[:, label], scores[:, label]) for label in range(5)]))


@pytest.mark.parametrize("averaged", ["logits", "probabilities"])
def test_the_mean_of_all_shares_within_half_a_point_of_the_best(averaged: Averaged) -> None:
    maps = {shares: _map(shares, averaged) for shares in IN_FIFTHS}
    near = [shares for shares, value in maps.items() if value >= max(maps.values()) - 0.005]

    found = fitting_shares(BRANCHES, TARGETS, averaged, PROTOCOL)

    assert 1 < len(near) < len(IN_FIFTHS)
    np.testing.assert_allclose(found, np.mean(near, axis=0))
    assert found[1] > found[0] > found[2]


def test_where_nothing_differs_all_branches_count_the_same() -> None:
    same = dict.fromkeys(("region", "global"), BRANCHES["region"])

    np.testing.assert_allclose(fitting_shares(same, TARGETS, "logits", PROTOCOL), [0.5, 0.5])


def test_unknown_cells_decide_nothing() -> None:
    unknown = TARGETS.copy()
    unknown[30:] = -1
    known = {name: values[:30] for name, values in BRANCHES.items()}

    np.testing.assert_array_equal(
        fitting_shares(BRANCHES, unknown, "logits", PROTOCOL), fitting_shares(known, TARGETS[:30], "logits", PROTOCOL)
    )


def test_of_many_images_some_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    every_third = {name: values[::3] for name, values in BRANCHES.items()}
    expected = fitting_shares(every_third, TARGETS[::3], "logits", PROTOCOL)

    monkeypatch.setattr("sspa.stage2_training.training.branch_shares._ENOUGH", 25)

    np.testing.assert_array_equal(fitting_shares(BRANCHES, TARGETS, "logits", PROTOCOL), expected)


def test_all_shares_of_the_grid() -> None:
    assert {tuple(shares) for shares in shares_in_steps(2, steps=2)} == {(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)}
    assert len(shares_in_steps(3)) == 21


def test_shares_are_fitted_within_the_block_and_restored_after_it(recognizer: Recognizer) -> None:
    head = recognizer.head

    with fitted_shares(head, {**BRANCHES, "both": BRANCHES["region"]}, TARGETS, PROTOCOL) as fitted:
        assert head.branch_shares is not None
        shares = head.branch_shares.double().numpy()
        assert shares[1] > shares[0]
        expected = np.average(logit(np.stack(list(BRANCHES.values()))), axis=0, weights=shares)
        np.testing.assert_allclose(fitted["both"], expit(expected), rtol=1e-4)

    assert torch.equal(head.branch_shares, torch.full((3,), 1 / 3))


def test_a_handful_of_images_decides_nothing(recognizer: Recognizer) -> None:
    head = recognizer.head
    assert head.branch_shares is not None
    before = head.branch_shares.clone()
    few = {name: values[:19] for name, values in BRANCHES.items()} | {"both": BRANCHES["region"][:19]}
    with fitted_shares(head, few, TARGETS[:19], PROTOCOL) as fitted:
        assert fitted is few
        assert torch.equal(head.branch_shares, before)
    enough = {name: values[:20] for name, values in BRANCHES.items()} | {"both": BRANCHES["region"][:20]}
    with fitted_shares(head, enough, TARGETS[:20], PROTOCOL):
        assert not torch.equal(head.branch_shares, before)


def test_a_head_with_one_branch_is_left_alone(recognizer: Recognizer) -> None:
    recognizer.head.branch_shares = None
    probabilities = {"global": BRANCHES["global"], "both": BRANCHES["global"]}

    with fitted_shares(recognizer.head, probabilities, TARGETS, PROTOCOL) as fitted:
        assert fitted is probabilities
