"""The one place where tensors and arrays are read from files (held by tests/test_architecture.py) and written.

Safetensors and .npy files hold numbers only. Pickled weights are read by torch's restricted unpickler. A TorchScript
archive is a program that runs while it is read: only `sspa-train backbone convert` does so, and only if told to.
"""

import pickle
import tokenize
import zipfile
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

# What the readers below raise on a damaged file; the last two, numpy on a header that is no Python literal.
UNREADABLE = (
    *(SafetensorError, OSError, RuntimeError, ValueError, EOFError, StopIteration, pickle.UnpicklingError),
    *(SyntaxError, tokenize.TokenError),
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
    return torch.load(path, map_location="cpu", weights_only=True)


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The state of a TorchScript archive, whose code runs meanwhile.

    Raises:
        UNREADABLE: it is no such file, or damaged.
    """
    return dict(torch.jit.load(path, map_location="cpu").state_dict())


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, by its table of contents."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


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
