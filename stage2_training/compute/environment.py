"""The environment of a run: everything that can cause a difference between two machines."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import features

if TYPE_CHECKING:
    import torch

_LIBRARIES = ("torch", "torchvision", "timm", "open_clip_torch", "transformers", "numpy", "pillow", "sspa-multilabel")
# Variables that limit the instruction sets or threads of torch's libraries.
_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment(device: "torch.device") -> dict[str, Any]:
    """Plain values for JSON: libraries, image decoders, CPU, threads, and the GPU if the run computes on one.

    Args:
        device: the one that the run computes on.
    """
    import torch

    on_gpu = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "libraries": library_versions(),
        "images": {name: features.version(name) or "none" for name in ("pil", "jpg", "libjpeg_turbo", "zlib", "webp")},
        "system": f"{platform.platform()}, {' '.join(platform.libc_ver())}",
        "cpu": _cpu_model(),
        "instruction_sets": {"torch": torch.backends.cpu.get_cpu_capability(), **_set_variables(_LIMITS)},
        "threads": {"torch": str(torch.get_num_threads()), **_set_variables(_THREADS)},
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "cuda": _cuda() if on_gpu else {},
        "git": _git_state(),
    }


def library_versions() -> dict[str, str]:
    """The versions of the libraries that affect results."""
    return {name: library_version(name) for name in _LIBRARIES}


@cache
def library_version(name: str) -> str:
    """The installed version, or "not installed"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _set_variables(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _cuda() -> dict[str, str]:
    import torch

    try:
        said = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        said = []
    versions = {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": said[0] if said else None,
        # Whether float32 is rounded to TF32 in matrix products and in convolutions.
        "tf32": f"{torch.backends.cuda.matmul.allow_tf32}, {torch.backends.cudnn.allow_tf32}",
    }
    return {name: str(value) for name, value in versions.items() if value is not None}


@cache
def _git_state() -> str | None:
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # installed from a wheel, or without git
    return said.stdout.strip()
