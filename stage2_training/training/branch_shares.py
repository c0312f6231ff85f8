"""Fits the branches' shares in the prediction to val (our extension): those with the best mAP.

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
from sspa.stage2_training.model.mixture import Mixture
from sspa.stage2_training.model.options import Averaged
from sspa.stage2_training.runs.records import FEWEST_TO_CHOOSE

_STEPS = 5
# More images than these decide no better, and would take minutes.
_ENOUGH = 5000
# Half a point of mAP.
_NEARLY = 0.005


@contextmanager
def fitted_shares(
    head: Head, probabilities: Probabilities, targets: NDArray[np.int8], protocol: Protocol
) -> Iterator[Probabilities]:
    """Within the block `head` has the shares that fit `targets`; yields the probabilities with that mixture.

    A head with a single branch has none, and fewer than `FEWEST_TO_CHOOSE` images decide nothing. Afterwards the
    shares are restored.

    Args:
        probabilities: by branch (N, C), in the order of the head's logits, and "both".
        targets: (N, C) of 1, 0, -1 for unknown.
    """
    if head.branch_shares is None or len(head.branch_shares) == 1 or len(targets) < FEWEST_TO_CHOOSE:
        yield probabilities
        return
    before = head.branch_shares.clone()
    shares = fitting_shares(probabilities, targets, head.averaged, protocol)
    try:
        head.branch_shares.copy_(torch.from_numpy(shares))
        yield head.mixture.added_to_arrays(probabilities)
    finally:
        head.branch_shares.copy_(before)


def fitting_shares(
    probabilities: Probabilities, targets: NDArray[np.int8], averaged: Averaged, protocol: Protocol
) -> NDArray[np.float64]:
    """The mean (K,) of all shares in fifths whose mixture has the best mAP, or one that is hardly worse.

    Few images cannot tell these apart, and their mean does better on others than the best of them.
    """
    every = -(-len(targets) // _ENOUGH)
    branches = {name: torch.from_numpy(values[::every]) for name, values in probabilities.items() if name != "both"}
    targets = targets[::every]
    grid = shares_in_steps(len(branches))
    mixed = (Mixture(averaged, torch.from_numpy(shares))(branches).numpy() for shares in grid)
    maps = np.array([np.nanmean(class_average_precisions(scores, targets, protocol)) for scores in mixed])
    return np.mean([shares for shares, value in zip(grid, maps, strict=True) if value >= maps.max() - _NEARLY], axis=0)


def shares_in_steps(count: int, steps: int = _STEPS) -> list[NDArray[np.float64]]:
    """All `count` shares that are multiples of 1 / steps and add up to 1."""
    return [np.array(parts) / steps for parts in product(range(steps + 1), repeat=count) if sum(parts) == steps]
