"""The losses, one label at a time; unknown labels cost and change nothing."""

import math

import pytest
import torch
from torch import Tensor

from sspa.stage2_training.model.losses import LossOptions, masked_loss, total_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.3, -4.0], [0.0, 1.5, -0.7, 3.0], [-2.0, 0.1, 0.6, 1.0]])
TARGETS = torch.tensor([[1, 0, -1, 0], [0, 1, 1, -1], [0, 0, 1, 0]])


def _asl(logit: float, target: float, positive: float, negative: float, clip: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    q = min(1 - p + clip, 1.0)
    cost = -target * math.log(p) - (1 - target) * math.log(q)
    return cost * (1 - (p * target + q * (1 - target))) ** (positive * target + negative * (1 - target))


def _sum(each: object) -> float:
    pairs = [(i, j) for i in range(3) for j in range(4) if TARGETS[i, j] >= 0]
    return sum(each(float(LOGITS[i, j]), int(TARGETS[i, j])) for i, j in pairs) / 3  # type: ignore[operator]


def test_asl_equals_a_loop_over_known_labels() -> None:
    options = LossOptions(gamma_negative=3.0, gamma_positive=1.0, clip=0.1)

    expected = _sum(lambda logit, target: _asl(logit, target, 1.0, 3.0, 0.1))

    assert float(masked_loss(LOGITS, TARGETS, options)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bce_equals_a_loop_over_known_labels(smoothing: float) -> None:
    def each(logit: float, target: int) -> float:
        p, soft = 1 / (1 + math.exp(-logit)), target * (1 - smoothing) + smoothing / 2
        return -soft * math.log(p) - (1 - soft) * math.log(1 - p)

    found = masked_loss(LOGITS, TARGETS, LossOptions(kind="bce", smoothing=smoothing))

    assert float(found) == pytest.approx(_sum(each), rel=1e-5)


def test_two_way_equals_a_loop_over_rows_and_columns() -> None:
    def side(logits: Tensor, targets: Tensor) -> float:
        costs = []
        for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
            negatives = [math.exp(x) for x, t in zip(row, wanted, strict=True) if t == 0]
            positives = [math.exp(-x / 4) for x, t in zip(row, wanted, strict=True) if t == 1]
            if negatives and positives:
                costs.append(math.log(1 + math.exp(math.log(sum(negatives)) + 4 * math.log(sum(positives)))))
        return sum(costs) / len(costs)

    found = masked_loss(LOGITS, TARGETS, LossOptions(kind="two-way"))

    assert float(found) == pytest.approx(side(LOGITS, TARGETS) + side(LOGITS.T, TARGETS.T), rel=1e-5)


@pytest.mark.parametrize("kind", ["asl", "bce", "two-way"])
def test_an_unknown_label_has_no_loss_and_no_gradient(kind: str) -> None:
    options = LossOptions(kind=kind)  # type: ignore[arg-type]
    logits = LOGITS.clone().requires_grad_()
    moved = torch.where(TARGETS < 0, LOGITS + 5.0, LOGITS)

    loss = masked_loss(logits, TARGETS, options)
    loss.backward()

    assert logits.grad is not None
    assert (logits.grad[TARGETS < 0] == 0).all()
    assert (logits.grad[TARGETS >= 0] != 0).any()
    torch.testing.assert_close(masked_loss(moved, TARGETS, options), loss.detach())


def test_the_total_is_the_sum_over_branches() -> None:
    options = LossOptions()

    total = total_loss({"region": LOGITS, "global": -LOGITS}, TARGETS, options)

    torch.testing.assert_close(total, masked_loss(LOGITS, TARGETS, options) + masked_loss(-LOGITS, TARGETS, options))
