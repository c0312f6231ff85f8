"""Gathers the scores of all processes by sample index, without duplicates, gaps or padding."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def gather_by_index(parts: Sequence[tuple[NDArray[np.int64], NDArray[Any]]], total: int) -> NDArray[Any]:
    """The rows of all processes in sample order.

    Processes may have different numbers of rows, and a sample that two of them have (a sampler's padding) counts once.

    Args:
        parts: each process's (n,) sample indices, 0 to total - 1, and its (n, ...) values, one row per index.
        total: N, the number of samples.

    Returns:
        (N, ...) values, row i for sample i.

    Raises:
        ValueError: no process has some sample, or an index is out of range.
    """
    values = parts[0][1]
    gathered = np.empty((total, *values.shape[1:]), dtype=values.dtype)
    seen = np.zeros(total, dtype=bool)
    for part_indices, part_values in parts:
        if len(part_indices) and (part_indices.min() < 0 or part_indices.max() >= total):
            raise ValueError(f"sample indices from {part_indices.min()} to {part_indices.max()}, of {total}")
        gathered[part_indices] = part_values
        seen[part_indices] = True
    if not seen.all():
        raise ValueError(f"{(~seen).sum()} of {total} samples were scored by no process, the first is {seen.argmin()}")
    return gathered
