"""Quaternion layers against a table of signs, and against algebra."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sspa.stage2_training.model.quaternion import QuaternionLinear, hamilton_matrix, quaternion_initial_weights

# Units 1, i, j, k as 0..3: (left, right) -> (sign, unit). i i = -1, i j = k, j i = -k, ...
TABLE = {
    **{(0, unit): (1, unit) for unit in range(4)},
    **{(unit, 0): (1, unit) for unit in range(4)},
    **{(unit, unit): (-1, 0) for unit in (1, 2, 3)},
    (1, 2): (1, 3),
    (2, 3): (1, 1),
    (3, 1): (1, 2),
    (2, 1): (-1, 3),
    (3, 2): (-1, 1),
    (1, 3): (-1, 2),
}


def _slow_product(weight: Tensor, x: Tensor) -> Tensor:
    """(4, out, in) times (4 in,) -> (4 out,), one pair of units at a time."""
    outputs, inputs = weight.shape[1:]
    y = [torch.zeros((), dtype=weight.dtype)] * (4 * outputs)
    for out in range(outputs):
        for into in range(inputs):
            for left in range(4):
                for right in range(4):
                    sign, unit = TABLE[left, right]
                    term = sign * weight[left, out, into] * x[right * inputs + into]
                    y[unit * outputs + out] = y[unit * outputs + out] + term
    return torch.stack(y)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_fused_product_equals_the_table_of_signs_in_values_and_gradients() -> None:
    weight, x, upstream = _draw(4, 2, 3).requires_grad_(), _draw(12, seed=1).requires_grad_(), _draw(8, seed=2)

    fused, slow = hamilton_matrix(*weight.unbind()) @ x, _slow_product(weight, x)

    torch.testing.assert_close(fused, slow)
    for one, other in zip(
        torch.autograd.grad(fused, (weight, x), upstream),
        torch.autograd.grad(slow, (weight, x), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_gradients_of_the_layer_are_right() -> None:
    layer = QuaternionLinear(8, 4).double()

    assert torch.autograd.gradcheck(layer, (_draw(2, 8).requires_grad_(),))


quaternions = st.lists(st.floats(-10, 10), min_size=4, max_size=4).map(lambda q: torch.tensor(q, dtype=torch.float64))


def _times(p: Tensor, q: Tensor) -> Tensor:
    return hamilton_matrix(*p[:, None, None]) @ q


def _conjugate(q: Tensor) -> Tensor:
    return q * torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64)


@settings(deadline=None, max_examples=60)
@given(quaternions, quaternions, quaternions)
def test_the_product_is_that_of_quaternions(p: Tensor, q: Tensor, r: Tensor) -> None:
    bound = {"atol": 1e-9, "rtol": 1e-9}
    torch.testing.assert_close(_times(p, q).norm(), p.norm() * q.norm(), **bound)
    torch.testing.assert_close(_conjugate(_times(p, q)), _times(_conjugate(q), _conjugate(p)), **bound)
    torch.testing.assert_close(_times(_times(p, q), r), _times(p, _times(q, r)), **bound)
    torch.testing.assert_close(_times(p, q + r), _times(p, q) + _times(p, r), **bound)


def test_a_layer_has_a_quarter_of_the_real_layers_weights() -> None:
    assert 4 * QuaternionLinear(32, 16).weight.numel() == torch.nn.Linear(32, 16).weight.numel()


@pytest.mark.parametrize(("criterion", "fan"), [("he", 100), ("glorot", 300)])
def test_initial_weights_have_the_papers_variance(criterion: str, fan: int) -> None:
    weights = quaternion_initial_weights(200, 100, criterion, torch.Generator().manual_seed(0))
    sigma = 1 / math.sqrt(2 * fan)

    squared = weights.square().mean(dim=(1, 2))

    # E|w|^2 = 4 sigma^2 (chi with four degrees of freedom); a uniform phase gives half of it to the real part.
    assert float(squared.sum()) == pytest.approx(4 * sigma**2, rel=0.02)
    assert float(squared[0]) == pytest.approx(2 * sigma**2, rel=0.04)
    assert weights.mean(dim=(1, 2)).abs().max() < 4 * sigma / math.sqrt(200 * 100)
