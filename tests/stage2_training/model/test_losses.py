"""The losses, one label at a time; unknown labels have no loss and no gradient."""

import math

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from sspa.stage2_training.model.losses import (
    AslOptions,
    BceOptions,
    Loss,
    LossOptions,
    TwoWayOptions,
    masked_loss,
    positive_shares,
    total_loss,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.3, -4.0], [0.0, 1.5, -0.7, 3.0], [-2.0, 0.1, 0.6, 1.0]])
TARGETS = torch.tensor([[1, 0, -1, 0], [0, 1, 1, -1], [0, 0, 1, 0]])
LOSSES: list[Loss] = [AslOptions(), BceOptions(), TwoWayOptions()]


def _asl(logit: float, target: float, positive: float, negative: float, clip: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    q = min(1 - p + clip, 1.0)
    cost = -target * math.log(p) - (1 - target) * math.log(q)
    return cost * (1 - (p * target + q * (1 - target))) ** (positive * target + negative * (1 - target))


def _sum(each: object) -> float:
    pairs = [(i, j) for i in range(3) for j in range(4) if TARGETS[i, j] >= 0]
    return sum(each(float(LOGITS[i, j]), int(TARGETS[i, j])) for i, j in pairs) / 3  # type: ignore[operator]


def test_asl_equals_a_loop_over_known_labels() -> None:
    options = AslOptions(gamma_negative=3.0, gamma_positive=1.0, clip=0.1)

    expected = _sum(lambda logit, target: _asl(logit, target, 1.0, 3.0, 0.1))

    assert float(masked_loss(LOGITS, TARGETS, options)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bce_equals_a_loop_over_known_labels(smoothing: float) -> None:
    def each(logit: float, target: int) -> float:
        p, soft = 1 / (1 + math.exp(-logit)), target * (1 - smoothing) + smoothing / 2
        return -soft * math.log(p) - (1 - soft) * math.log(1 - p)

    found = masked_loss(LOGITS, TARGETS, BceOptions(smoothing=smoothing))

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

    found = masked_loss(LOGITS, TARGETS, TwoWayOptions())

    assert float(found) == pytest.approx(side(LOGITS, TARGETS) + side(LOGITS.T, TARGETS.T), rel=1e-5)


def test_frequency_weights_equal_a_loop() -> None:
    shares = positive_shares(TARGETS)
    loss = masked_loss(LOGITS, TARGETS, BceOptions(weighting="frequency"), shares)

    expected = 0.0
    for column in range(TARGETS.shape[1]):
        known = [int(target) for target in TARGETS[:, column] if target >= 0]
        share = sum(known) / len(known) if known else 0.5
        assert float(shares[column]) == pytest.approx(share)
        for logit, target in zip(LOGITS[:, column].tolist(), TARGETS[:, column].tolist(), strict=True):
            if target >= 0:
                probability = 1 / (1 + math.exp(-logit))
                cost = -math.log(probability if target == 1 else 1 - probability)
                expected += math.exp(1 - share if target == 1 else share) * cost
    assert float(loss) == pytest.approx(expected / len(TARGETS), rel=1e-5)
    with pytest.raises(ValueError, match="shares"):
        masked_loss(LOGITS, TARGETS, BceOptions(weighting="frequency"))


@pytest.mark.parametrize("options", LOSSES, ids=lambda options: options.kind)
def test_an_unknown_label_has_no_loss_and_no_gradient(options: Loss) -> None:
    logits = LOGITS.clone().requires_grad_()
    moved = torch.where(TARGETS < 0, LOGITS + 5.0, LOGITS)

    loss = masked_loss(logits, TARGETS, options)
    loss.backward()

    assert logits.grad is not None
    assert (logits.grad[TARGETS < 0] == 0).all()
    assert (logits.grad[TARGETS >= 0] != 0).any()
    torch.testing.assert_close(masked_loss(moved, TARGETS, options), loss.detach())


def test_the_total_is_the_sum_over_branches() -> None:
    options = AslOptions()

    total = total_loss({"region": LOGITS, "global": -LOGITS}, TARGETS, options)

    torch.testing.assert_close(total, masked_loss(LOGITS, TARGETS, options) + masked_loss(-LOGITS, TARGETS, options))


@pytest.mark.parametrize("options", LOSSES, ids=lambda options: options.kind)
def test_a_loss_says_truly_whether_it_feels_a_shift_and_couples_images(options: Loss) -> None:
    loss, shifted = (masked_loss(logits, TARGETS, options) for logits in (LOGITS.double(), LOGITS.double() + 0.5))
    parts = sum(
        masked_loss(LOGITS[row : row + 1].double(), TARGETS[row : row + 1], options) / 3 for row in range(len(LOGITS))
    )

    assert options.ignores_shift == (abs(float(loss - shifted)) < 1e-6)
    assert options.couples_images == (abs(float(loss - parts)) > 1e-6)


def test_every_loss_is_tested_here() -> None:
    schema = TypeAdapter(LossOptions).json_schema()
    assert set(schema["discriminator"]["mapping"]) == {options.kind for options in LOSSES}  # type: ignore[attr-defined]
