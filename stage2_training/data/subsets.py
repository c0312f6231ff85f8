"""Reduced training data for experiments: partial labels, few images per label, labels unseen in training.

Every draw is a pure function of the seed and of an image's id or a label's key, and nested: labels known at 10% are
known at 20%, and the images of one shot are among those of two. Test is never changed, and val only if labels are
unseen: otherwise the choice of the epoch would use them.

Legend: N images, C labels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.suggestions import nearest
from sspa.stage2_training.data.manifest import Manifest


@dataclass(frozen=True)
class Subset:
    """How the training data is reduced; by default, not at all.

    Attributes:
        known_fraction: the share of training labels (cells, not images) that stay known.
        shots: the number of images kept per label (all of them if it has fewer); None keeps every image.
            An image kept for one label keeps its other labels, so that frequent labels have more.
        unseen: labels that are unknown throughout train and val: their keys, or how many to draw.
    """

    known_fraction: float = 1.0
    shots: int | None = None
    unseen: int | tuple[str, ...] = 0


def reduce_training(manifest: Manifest, subset: Subset, seed: int) -> Manifest:
    """The manifest with reduced training data; its note says how.

    Raises:
        UserError: an unknown label, no label left to train on, or no positive left in training.
    """
    unseen = unseen_labels(manifest.labels.keys, subset.unseen, seed)
    if not unseen and subset.shots is None and subset.known_fraction == 1:
        return manifest
    targets, splits = manifest.targets.copy(), np.array(manifest.splits, dtype=object)
    said = []
    if unseen:
        columns = [manifest.labels.keys.index(key) for key in unseen]
        targets[np.ix_(splits != "test", columns)] = -1
        said.append(f"{len(unseen)} labels unseen in training")
    train = np.flatnonzero(splits == "train")
    if subset.shots is not None:
        kept = few_shot_rows([manifest.ids[row] for row in train], targets[train], subset.shots, seed)
        remaining = np.sort(np.concatenate([np.flatnonzero(splits != "train"), train[kept]]))
        manifest = replace(manifest, targets=targets).only(remaining)
        targets, train = manifest.targets.copy(), manifest.rows_of("train")
        said.append(f"{subset.shots} training images per label, {len(train)} in all")
    if subset.known_fraction < 1:
        known = known_cells([manifest.ids[row] for row in train], targets.shape[1], subset.known_fraction, seed)
        targets[train] = np.where(known, targets[train], -1)
        said.append(f"{subset.known_fraction:.0%} of training labels known")
    if not (targets[train] == 1).any():
        raise UserError(f"{manifest.dataset}: with {', '.join(said)} (seed {seed}) no positive is left; leave more")
    return replace(manifest, targets=targets, note="; ".join([manifest.note, *said, f"drawn with seed {seed}"]))


def unseen_labels(keys: Sequence[str], unseen: int | Sequence[str], seed: int) -> tuple[str, ...]:
    """The labels unseen in training, in the order of `keys`; a number draws that many.

    Raises:
        UserError: one of them does not exist, or no label would be left to train on.
    """
    if isinstance(unseen, int):
        names = sorted(keys, key=lambda key: _digest("unseen", seed, key))[:unseen]
    else:
        names = list(unseen)
    for name in names:
        if name not in keys:
            hint = nearest(name, keys)
            raise UserError(f"data.unseen: there is no label {name!r}" + (f"; {hint}" if hint else ""))
    if len(set(names)) >= len(keys):
        raise UserError(f"data.unseen: of {len(keys)} labels none would be left to train on; leave some out")
    return tuple(key for key in keys if key in names)


def few_shot_rows(ids: Sequence[str], targets: NDArray[np.int8], shots: int, seed: int) -> NDArray[np.int64]:
    """The rows to keep: for each label its first `shots` positives, in a random order common to all labels."""
    order = np.array(sorted(range(len(ids)), key=lambda row: _digest("shots", seed, ids[row])), dtype=np.int64)
    kept = [order[targets[order, label] == 1][:shots] for label in range(targets.shape[1])]
    return np.unique(np.concatenate(kept))


def known_cells(ids: Sequence[str], labels: int, fraction: float, seed: int) -> NDArray[np.bool_]:
    """(N, C): which cells stay known, each with probability `fraction`, independently."""
    size = 4 * labels
    drawn = b"".join(hashlib.shake_128(f"known\0{seed}\0{key}".encode()).digest(size) for key in ids)
    uniform = np.frombuffer(drawn, dtype="<u4").reshape(len(ids), labels) / 2**32
    return uniform < fraction


def _digest(use: str, seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{use}\0{seed}\0{key}".encode()).digest()
