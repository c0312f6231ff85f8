"""Images that are the same, or nearly: copies under other names, and rescaled, recompressed or slightly edited ones.

A picture that is both in train and in test makes test figures a lie.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.terminal import progress
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.data.shards import open_in_shard

# Of the 256 bits of two perceptual hashes, so many differ at most in what counts as nearly the same picture.
NEAR = 32
_HASH_SIDE = 16
_PIXELS = 256
# Rows of the comparison at a time: 32 MB of bits that differ.
_BLOCK = 256


@dataclass(frozen=True)
class Duplicate:
    """Two rows of a list of images; `bits` is how many of their hashes' 256 bits differ, None for the same bytes."""

    first: int
    second: int
    bits: int | None


@dataclass(frozen=True)
class Fingerprints:
    """Of N images: the SHA-256 of each file, the perceptual hash, (N, 4) uint64, and which could not be decoded."""

    content: tuple[str, ...]
    perceptual: NDArray[np.uint64]
    unreadable: dict[int, str]


def fingerprints(paths: Sequence[Path]) -> Fingerprints:
    """Read every image once, in parallel.

    Raises:
        UserError: imagehash is not installed.
    """
    if find_spec("imagehash") is None:
        raise UserError("comparing images needs imagehash; install the extra `data`")
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress("comparing", total=len(paths), unit="images") as bar,
    ):
        found = []
        for one in pool.map(_fingerprint, paths):
            bar.advance()
            found.append(one)
    return Fingerprints(
        tuple(content for content, _, _ in found),
        np.stack([bits for _, bits, _ in found]) if found else np.zeros((0, 4), np.uint64),
        {row: problem for row, (_, _, problem) in enumerate(found) if problem},
    )


def duplicates(prints: Fingerprints, near: int = NEAR) -> list[Duplicate]:
    """Every pair of the same bytes, and every pair whose perceptual hashes differ in at most `near` bits.

    Images that cannot be decoded are in no pair.
    """
    found: dict[tuple[int, int], int | None] = {}
    rows = np.array([row for row in range(len(prints.content)) if row not in prints.unreadable], dtype=np.int64)
    # A picture of one colour has no structure that could be compared.
    telling = rows[_has_structure(prints.perceptual[rows])] if len(rows) else rows
    hashes = prints.perceptual[telling]
    for start in range(0, len(telling), _BLOCK):
        block = hashes[start : start + _BLOCK]
        differing = np.bitwise_count(block[:, None, :] ^ hashes[None, start:, :]).sum(axis=2, dtype=np.int64)
        for one, other in np.argwhere(differing <= near):
            if one < other:
                pair = (int(telling[start + one]), int(telling[start + other]))
                found[pair] = int(differing[one, other])
    same: dict[str, list[int]] = defaultdict(list)
    for row in rows.tolist():
        same[prints.content[row]].append(row)
    for members in same.values():
        found |= {(one, other): None for place, one in enumerate(members) for other in members[place + 1 :]}
    return [Duplicate(*pair, bits) for pair, bits in sorted(found.items())]


def _has_structure(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """A quarter of the bits of each kind at least; the median makes half of them in any other picture."""
    ones = np.bitwise_count(hashes).sum(axis=1, dtype=np.int64)
    return (ones >= 64) & (ones <= 192)


def _fingerprint(path: Path) -> tuple[str, NDArray[np.uint64], str]:
    import imagehash

    nothing = np.zeros(4, dtype=np.uint64)
    try:
        opened = open_in_shard(path)
        content = hashlib.sha256(opened.read() if opened else path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable {path}", nothing, f"{path}: cannot be read ({error.strerror})"
    try:
        image = load_image(path, at_least=_PIXELS)
    except UserError as error:
        return content, nothing, str(error)
    bits = imagehash.phash(image, hash_size=_HASH_SIDE).hash
    return content, np.packbits(bits.ravel()).view(np.uint64), ""
