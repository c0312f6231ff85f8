"""Statistics of a manifest: positives, cardinality and co-occurrence, as numbers and as an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.data.manifest import SPLITS, Manifest

# Images whose labels are counted together.
_BLOCK = 65_536


@dataclass(frozen=True)
class SplitFigures:
    """One split.

    Attributes:
        images: N.
        positives: (C,) images with each label.
        unknown: (C,) images in which the label is unknown.
        cardinality: labels per image, on average.
        unlabelled: images without any label, of which something is known.
        blank: images of which nothing is known.
    """

    images: int
    positives: NDArray[np.int64]
    unknown: NDArray[np.int64]
    cardinality: float
    unlabelled: int
    blank: int


def split_figures(manifest: Manifest) -> dict[str, SplitFigures]:
    """The statistics of each existing split, in the order train, val, test."""
    figures = {}
    for split in SPLITS:
        targets = manifest.targets[manifest.rows_of(split)]
        if len(targets):
            there = targets == 1
            figures[split] = SplitFigures(
                images=len(targets),
                positives=there.sum(axis=0),
                unknown=(targets == -1).sum(axis=0),
                cardinality=float(there.sum(axis=1).mean()),
                unlabelled=int((~there.any(axis=1) & (targets != -1).any(axis=1)).sum()),
                blank=int((targets == -1).all(axis=1).sum()),
            )
    return figures


def co_occurrence(manifest: Manifest) -> NDArray[np.int64]:
    """(C, C): the number of images with both labels; on the diagonal, with that label."""
    counts = np.zeros((len(manifest.labels.keys),) * 2, dtype=np.int64)
    for start in range(0, len(manifest.targets), _BLOCK):
        # In floats, since numpy multiplies matrices of integers a hundred times slower; exact for this many images.
        there = (manifest.targets[start : start + _BLOCK] == 1).astype(np.float32)
        counts += (there.T @ there).astype(np.int64)
    return counts


def frequent_pairs(manifest: Manifest, count: int) -> list[tuple[str, str, int]]:
    """The label pairs that occur together most often."""
    together = np.triu(co_occurrence(manifest), k=1)
    order = np.argsort(-together, axis=None, kind="stable")[:count]
    keys = manifest.labels.keys
    pairs = (np.unravel_index(int(place), together.shape) for place in order)
    return [(keys[a], keys[b], int(together[a, b])) for a, b in pairs if together[a, b] > 0]


def draw_figures(manifest: Manifest, path: Path) -> None:
    """Plot positives per split, labels per image, and co-occurrence; the extension decides: png, svg or pdf."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    from sspa.shared.files import replacing

    figures = split_figures(manifest)
    keys = manifest.labels.keys
    size = max(4.0, 0.22 * len(keys))
    figure, (bars, counts, matrix) = plt.subplots(1, 3, figsize=(size + 9, size), width_ratios=(1.2, 0.8, 1.2))
    places: NDArray[Any] = np.arange(len(keys))
    left = np.zeros(len(keys))
    for split, found in figures.items():
        bars.barh(places, found.positives, left=left, label=f"{split} ({found.images:,})")
        left += found.positives
    bars.set_yticks(places, keys)
    bars.invert_yaxis()
    bars.set_xlabel("images with the label")
    bars.legend()
    cardinality = (manifest.targets == 1).sum(axis=1)
    values, images = np.unique(cardinality, return_counts=True)
    counts.bar(values, images)
    counts.set_xlabel("labels in an image")
    counts.set_ylabel("images")
    together = co_occurrence(manifest).astype(float)
    shares = together / np.maximum(np.diag(together), 1)[:, None]
    image = matrix.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    matrix.set_xticks(places, keys, rotation=90)
    matrix.set_yticks(places, keys)
    matrix.set_title("share of the row's images that have the column's label")
    figure.colorbar(image, ax=matrix)
    figure.suptitle(f"{manifest.dataset}, protocol {manifest.protocol.name}")
    figure.tight_layout()
    with replacing(path) as beside:
        figure.savefig(beside, format=path.suffix.lstrip(".") or "png", dpi=90)
    plt.close(figure)
