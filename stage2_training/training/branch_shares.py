"""Fits the branches' shares in the prediction to val (our extension): the mixture with the best mAP.

The sum of the branches' losses trains each branch on its own, and nothing in it says how far to trust which: a branch
that a domain does not suit drags the mean down.

Legend: N images, C labels, K branches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.stage2_training.evaluation.metrics import Probabilities, class_average_precisions
from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.model.contract import Head

_STEPS = 10


@contextmanager
def fitted_shares(
    head: Head, probabilities: Probabilities, targets: NDArray[np.int8], protocol: Protocol
) -> Iterator[Probabilities]:
    """Within the block `head` has the shares that fit `targets`; yields the probabilities with that mixture.

    A head with a single branch has none. Afterwards the shares are restored.

    Args:
        probabilities: by branch (N, C), in the order of the head's logits, and "both".
        targets: (N, C) of 1, 0, -1 for unknown.
    """
    if head.branch_shares is None or len(head.branch_shares) == 1:
        yield probabilities
        return
    before = head.branch_shares.clone()
    branches = np.stack([values for branch, values in probabilities.items() if branch != "both"])
    shares = best_shares(branches, targets, protocol)
    try:
        head.branch_shares.copy_(torch.from_numpy(shares))
        yield {**probabilities, "both": mixed(branches, shares)}
    finally:
        head.branch_shares.copy_(before)


def best_shares(branches: NDArray[np.float32], targets: NDArray[np.int8], protocol: Protocol) -> NDArray[np.float64]:
    """The shares (K,), in tenths, of the mixture with the best mAP; of equally good ones the most even.

    Args:
        branches: probabilities (K, N, C).
    """
    grid = sorted(shares_in_steps(len(branches)), key=lambda shares: float(np.square(shares).sum()))
    maps = [np.nanmean(class_average_precisions(mixed(branches, shares), targets, protocol)) for shares in grid]
    return grid[int(np.argmax(maps))]


def mixed(branches: NDArray[np.float32], shares: NDArray[np.float64]) -> NDArray[np.float32]:
    """(K, N, C), (K,) -> (N, C)."""
    return np.tensordot(shares.astype(np.float32), branches, axes=1)


def shares_in_steps(count: int, steps: int = _STEPS) -> list[NDArray[np.float64]]:
    """All `count` shares that are multiples of 1 / steps and add up to 1."""
    return [np.array(parts) / steps for parts in product(range(steps + 1), repeat=count) if sum(parts) == steps]
