"""Memory: less of it for more computing, and how much a run took."""

import resource
from collections.abc import Iterable
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sspa.shared.errors import UserError


def recompute_activations(blocks: Iterable[nn.Module]) -> None:
    """Keep only the input of each trained block of the image tower; the numbers stay the same.

    Raises:
        UserError: no block is trained.
    """
    trained = [block for block in blocks if any(parameter.requires_grad for parameter in block.parameters())]
    if not trained:
        raise UserError(
            "training.checkpoint_activations saves memory in a trained image tower, and this one is frozen; "
            "set it to false, or backbone.tower to all or last:K"
        )
    for block in trained:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most that this process held, in bytes; on a GPU also what was allocated there."""
    # Linux counts in KiB.
    peak = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    return {**peak, "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated()} if device.type == "cuda" else peak
