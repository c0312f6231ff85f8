"""Memory: less of it for more computing, and how much a run took."""

import resource
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import Backbone


def recompute_activations(backbone: Backbone) -> None:
    """Keep only what goes into each block of the image tower; the numbers stay the same.

    Raises:
        UserError: nothing of the tower is trained, or its blocks are not known.
    """
    tower = backbone.image_tower
    if not any(parameter.requires_grad for parameter in tower.parameters()):
        raise UserError(
            "training.checkpoint_activations saves memory in a trained image tower, and this one is frozen; "
            "set it to false, or backbone.tower to all or last:K"
        )
    for block in tower.blocks():
        if any(parameter.requires_grad for parameter in block.parameters()):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most that this process held, in bytes; on a GPU also what was allocated there."""
    # Linux counts in KiB.
    peak = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    return {**peak, "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated()} if device.type == "cuda" else peak
