"""Fits the logit biases that a loss cannot determine to val, so that probability 0.5 is meaningful.

Legend: N images, C labels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from sspa.stage2_training.evaluation.metrics import Probabilities
from sspa.stage2_training.model.contract import Head
from sspa.stage2_training.model.loss_options import Loss

# No finite logit gives a probability of 0 or 1, but float32 rounds to them.
_CLOSEST = 1e-7
_WIDEST = 60.0


@contextmanager
def fitted_biases(
    head: Head, loss: Loss, probabilities: Probabilities, targets: NDArray[np.int8]
) -> Iterator[Probabilities]:
    """Within the block, each branch of `head` has the bias that fits `targets`; yields the resulting probabilities.

    If the loss fits biases itself, nothing changes. Afterwards the biases are restored bit for bit.

    Args:
        probabilities: by branch (N, C), with the current biases.
        targets: (N, C) of 1, 0, -1 for unknown.
    """
    biases = head.logit_biases() if loss.ignores_shift else {}
    before = {branch: bias.detach().clone() for branch, bias in biases.items()}
    fitted = dict(probabilities)
    try:
        with torch.no_grad():
            for branch, bias in biases.items():
                shift = best_shift(probabilities[branch], targets)
                bias.add_(shift)
                fitted[branch] = expit(_logits(probabilities[branch]) + shift).astype(np.float32)
        yield head.mixture.added_to_arrays(fitted) if biases else probabilities
    finally:
        with torch.no_grad():
            for branch, bias in biases.items():
                bias.copy_(before[branch])


def best_shift(probabilities: NDArray[np.float32], targets: NDArray[np.int8]) -> float:
    """The shift of all logits that minimises binary cross-entropy over the known cells.

    Args:
        probabilities, targets: (N, C).

    Returns:
        0 if the known cells are all positive or all negative, since no finite shift is optimal then.
    """
    known = targets >= 0
    logits, positives = _logits(probabilities)[known], float((targets[known] == 1).mean()) if known.any() else 0.0
    if not 0 < positives < 1:
        return 0.0
    # Here, since few losses need it and it takes half a second to import.
    from scipy.optimize import brentq

    # The derivative is zero where the mean probability equals the share of positives.
    return float(brentq(lambda shift: expit(logits + shift).mean() - positives, -_WIDEST, _WIDEST))


def _logits(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(logit(probabilities.astype(np.float64).clip(_CLOSEST, 1 - _CLOSEST)))
