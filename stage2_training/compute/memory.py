"""Memory: activation checkpointing, and a run's peak usage."""

import resource
from collections.abc import Iterable
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sspa.shared.errors import UserError


def recompute_activations(blocks: Iterable[nn.Module]) -> None:
    """Store only the input of each trained block of the image tower; results do not change.

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
    """Peak memory of this process in bytes, and of the GPU if there is one."""
    # Linux counts in KiB.
    peak = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    return {**peak, "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated()} if device.type == "cuda" else peak
