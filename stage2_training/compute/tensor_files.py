"""The one place where tensors and arrays are read from files (held by tests/test_architecture.py) and written.

Safetensors and .npy files hold numbers only. Pickled weights are read by torch's restricted unpickler, and those of
TorchScript archives by ours (`torchscript_archives.py`), which runs nothing of them.
"""

import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sspa.shared.errors import UserError
from sspa.shared.files import replacing

# What the readers raise on a damaged file; SyntaxError and TokenError, numpy on a header that is no Python literal.
UNREADABLE = (
    *(SafetensorError, OSError, RuntimeError, ValueError, EOFError, StopIteration, pickle.UnpicklingError),
    *(SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU.

    Raises:
        UserError: a tensor has a value that is not finite.
        UNREADABLE: it is no such file, or damaged.
    """
    tensors = load_file(path)
    check_finite(tensors, path)
    return tensors


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically.

    Raises:
        UserError: it cannot be written, or the disk is full; the old file is unchanged.
    """
    with replacing(path) as beside:
        try:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, beside, metadata)
        except SafetensorError as error:
            # An OSError that passed through Rust.
            raise OSError(str(error)) from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a safetensors file.

    Raises:
        UNREADABLE: it is no such file, or damaged.
    """
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def read_pickled(path: Path) -> Any:
    """What torch.save wrote, restricted to tensors and plain containers.

    Raises:
        UNREADABLE: it is no such file, damaged, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (TypeError, AttributeError, LookupError, AssertionError, RecursionError, struct.error) as error:
        # torch's unpickler on a damaged program: an operand is missing, or of another kind.
        raise pickle.UnpicklingError(f"damaged: {error}") from error


def map_array(path: Path) -> NDArray[Any]:
    """A memory-mapped .npy file.

    Raises:
        UNREADABLE: it is no such file, damaged, or holds Python objects.
    """
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Reject NaN and infinity, which would spread to every result without an error.

    Raises:
        UserError: names the tensor.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{path}: {name} has values that are not finite; the file is damaged, get it again")
