"""The device that torch computes on, and settings that suit it."""

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sspa.shared.errors import UserError
from sspa.stage2_training.compute.device_name import check_device_name

# mallopt's parameters, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEP, _GROW_BY = 2**31 - 1, 64 * 2**20


def choose_device(wanted: str) -> torch.device:
    """The device of that name: `auto` takes a GPU if there is one. Has no side effects.

    Args:
        wanted: auto, cpu, cuda, or cuda:N for the GPU of that number.

    Raises:
        UserError: another name, or a GPU that torch does not see.
    """
    if check_device_name(wanted) in ("auto", "cpu"):
        return torch.device("cuda" if wanted == "auto" and torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        raise UserError(f"--device {wanted}: torch sees no CUDA device here; take --device auto or cpu")
    count = torch.cuda.device_count()
    _, colon, number = wanted.partition(":")
    if colon and int(number) >= count:
        raise UserError(f"--device {wanted}: torch sees {count} CUDA devices; take cuda:0 to cuda:{count - 1}")
    return torch.device(wanted)


def prepare_device(device: torch.device) -> None:
    """Settings of this process for a device: float32 is float32, the GPU is the current one, a CPU keeps freed memory.

    By torch's defaults, convolutions on a GPU round float32 to TF32 and matrix products do not. Whoever wants less
    precision and more speed says so: `training.precision`, `--precision`.
    """
    if device.type == "cpu":
        keep_freed_memory()
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if device.index is not None:
        torch.cuda.set_device(device)


def computes_bf16(device: torch.device) -> bool:
    """Whether a GPU multiplies matrices in bf16: NVIDIA's from Ampere on, AMD's that torch supports.

    torch itself says that older ones support it, since it emulates it there, more slowly than float32.
    """
    if device.type != "cuda":
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def keep_freed_memory() -> None:
    """Let glibc keep up to 2 GiB of freed memory instead of returning every large block to the kernel.

    On a CPU, torch allocates every activation anew, and fresh memory costs a page fault per 4 KiB: nearly half of
    an image tower's time. The price is a peak memory 10% to 50% higher. Does nothing if the C library has no mallopt,
    or if the environment sets glibc's own MALLOC_MMAP_MAX_ or MALLOC_TRIM_THRESHOLD_.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not os.environ.keys() & {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}:
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEEP), (_TOP_PAD, _GROW_BY)):
            mallopt(parameter, value)


def attention_kernels(device: torch.device, dtype: torch.dtype | None, tower: str) -> AbstractContextManager[None]:
    """For a forward pass in training: selects attention kernels whose backward pass is fast as well.

    On a CPU, the fused kernel's backward pass in bf16 takes five times as long as plain matrix products. But those
    store all attention weights, too many if the image tower is trained and its regions attend to each other.

    Args:
        device: where the pass runs.
        dtype: of autocast.
        tower: `backbone.tower`, which part of the image tower is trained.
    """
    if device.type == "cpu" and dtype == torch.bfloat16 and tower == "frozen":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
