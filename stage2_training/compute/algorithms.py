"""How torch computes: deterministic algorithms only, or compiled code, if requested."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sspa.shared.errors import UserError


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Within the block, equal runs on one GPU give bit-identical results; operations that cannot raise an error."""
    if not wanted:
        yield
        return
    # cuBLAS reads it on first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def compile_model(head: nn.Module, image_tower: nn.Module, text_tower: nn.Module, device: torch.device) -> None:
    """Compile the head, the text tower that prompts pass, and the image tower if it is trained, on their first call.

    Weights and names do not change.

    Raises:
        UserError: there is no C++ compiler, which compiling for a CPU needs.
    """
    compilers = [os.environ[name] for name in ("CXX",) if name in os.environ] or ["g++", "clang++"]
    if device.type == "cpu" and not any(shutil.which(compiler) for compiler in compilers):
        raise UserError(
            f"training.compile needs a C++ compiler ({' or '.join(compilers)}); install one, or set it to false"
        )
    head.compile()
    text_tower.compile()
    if any(parameter.requires_grad for parameter in image_tower.parameters()):
        image_tower.compile()
