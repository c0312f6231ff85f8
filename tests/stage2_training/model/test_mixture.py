"""The mixture of branches against scipy's, number by number."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from sspa.stage2_training.model.mixture import Mixture

GENERATOR = np.random.default_rng(0)
BRANCHES = {name: GENERATOR.random((4, 3), dtype=np.float32) for name in ("region", "global", "knowledge")}
SHARES = np.array([0.5, 0.3, 0.2])


def _expected(shares: np.ndarray, *, logits: bool) -> np.ndarray:
    stacked = np.stack(list(BRANCHES.values())).astype(np.float64)
    averaged = np.average(logit(stacked) if logits else stacked, axis=0, weights=shares)
    return expit(averaged) if logits else averaged


@pytest.mark.parametrize("averaged", ["logits", "probabilities"])
@pytest.mark.parametrize("shares", [None, SHARES])
def test_the_mean_of_what_is_averaged(averaged: str, shares: np.ndarray | None) -> None:
    mixture = Mixture(averaged, None if shares is None else torch.from_numpy(shares))  # type: ignore[arg-type]

    found = mixture.added_to_arrays({**BRANCHES, "both": np.zeros((4, 3), np.float32)})

    expected = _expected(np.full(3, 1 / 3) if shares is None else shares, logits=averaged == "logits")
    np.testing.assert_allclose(found["both"], expected, rtol=1e-5)
    assert list(found) == ["region", "global", "knowledge", "both"]
    assert found["both"].dtype == np.float32


def test_a_single_branch_is_the_prediction_bit_for_bit() -> None:
    alone = torch.tensor([[0.0, 1e-30, 0.3, 1.0]])

    assert torch.equal(Mixture("logits")({"region": alone}), alone)


def test_probabilities_that_float32_rounds_to_zero_or_one_stay_finite() -> None:
    certain = {"region": torch.tensor([[0.0, 1.0]]), "global": torch.tensor([[1.0, 1.0]])}

    never, always = Mixture("logits")(certain)[0].tolist()

    assert never == pytest.approx(0.5, abs=0.03)
    assert always > 0.999999
