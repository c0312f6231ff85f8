"""What every form is written from: images with marks, of a manifest or of a model's predictions."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sspa.stage2_training.data.manifest import Manifest

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class MarkedImage:
    """One image.

    Attributes:
        path: relative to the data root, or as the predictions name it.
        there: the keys of its labels.
        unknown: of labels of which nothing is known.
        split, key, group: of a manifest; "" otherwise.
        probabilities: of every label, where a model made the marks.
        boxes: of labels' strongest regions, where a model made the marks.
    """

    path: str
    there: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    split: str = ""
    key: str = ""
    group: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)


@dataclass(frozen=True)
class MarkedImages:
    """Images in their order, and the keys of all labels. `predicted` is True if a model made the marks."""

    labels: tuple[str, ...]
    images: Iterable[MarkedImage]
    predicted: bool


def manifest_images(manifest: Manifest) -> MarkedImages:
    """The images of a manifest."""
    keys = manifest.labels.keys

    def images() -> Iterator[MarkedImage]:
        groups = manifest.groups or itertools.repeat("", len(manifest.ids))
        columns = zip(manifest.paths, manifest.splits, manifest.ids, groups, manifest.targets, strict=True)
        for path, split, key, group, targets in columns:
            marks = targets.tolist()
            yield MarkedImage(
                path,
                tuple(key for key, mark in zip(keys, marks, strict=True) if mark == 1),
                tuple(key for key, mark in zip(keys, marks, strict=True) if mark == -1),
                split,
                key,
                group,
            )

    return MarkedImages(keys, images(), predicted=False)
