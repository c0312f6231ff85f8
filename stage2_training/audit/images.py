"""Images that need a look whatever the marks say: unreadable, copies of each other, without detail, without a label."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sspa.shared.files import replacing
from sspa.stage2_training.data.duplicates import Duplicate, duplicates, fingerprints
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.data.sharpness import blurred_images

Kind = Literal["unreadable", "copies", "without detail", "without label"]


@dataclass(frozen=True)
class ImageFinding:
    """One image, or a pair of copies.

    Attributes:
        finding: what was found.
        path, split: of the image; the split is the manifest's.
        other, other_split: of the other copy.
        disagree: keys of the labels that are marked present on one copy and absent on the other.
        bits: how many of the 256 bits of the copies' perceptual hashes differ; None for the same bytes.
        sharpness: of an image without detail, see `data.sharpness`.
        reason: why an image is unreadable.
    """

    finding: Kind
    path: str
    split: str
    other: str | None = None
    other_split: str | None = None
    disagree: tuple[str, ...] = ()
    bits: int | None = None
    sharpness: float | None = None
    reason: str | None = None

    @property
    def across_splits(self) -> bool:
        """Whether the copies are in two splits, so that what is measured was seen in training."""
        return self.other is not None and self.split != self.other_split


def find_in_images(manifest: Manifest, paths: Sequence[Path]) -> list[ImageFinding]:
    """What is noteworthy about the images of a data set, all splits; of test's marks only those of copies are used.

    Unreadable images come first, then copies (in two splits, then with other marks, then the rest), images without
    detail, the least sharp first, and images of train and val of which something is known but no label is present.

    Args:
        paths: of the manifest's N images.
    """
    prints = fingerprints(paths)
    found = [
        ImageFinding("unreadable", str(paths[row]), manifest.splits[row], reason=reason)
        for row, reason in sorted(prints.unreadable.items())
    ]
    copies = [_copies(manifest, paths, pair) for pair in duplicates(prints)]
    found += sorted(copies, key=lambda one: (not one.across_splits, not one.disagree))
    split_of = {str(path): split for path, split in zip(paths, manifest.splits, strict=True)}
    found += [
        ImageFinding("without detail", str(path), split_of[str(path)], sharpness=value)
        for path, value in blurred_images(paths)
    ]
    found += [
        ImageFinding("without label", str(paths[int(row)]), manifest.splits[int(row)])
        for row in _without_any_label(manifest.targets)
        if manifest.splits[int(row)] != "test"
    ]
    return found


def write_findings(found: Sequence[ImageFinding], path: Path) -> None:
    """The table: the attributes of `ImageFinding`, in its order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            pa.field("finding", pa.string(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("other", pa.string()),
            pa.field("other_split", pa.string()),
            pa.field("disagree", pa.list_(pa.string()), nullable=False),
            pa.field("bits", pa.int16()),
            pa.field("sharpness", pa.float32()),
            pa.field("reason", pa.string()),
        ]
    )
    with replacing(path) as beside:
        pq.write_table(pa.Table.from_pylist([asdict(one) for one in found], schema=schema), beside)


def _copies(manifest: Manifest, paths: Sequence[Path], pair: Duplicate) -> ImageFinding:
    one, other = manifest.targets[pair.first], manifest.targets[pair.second]
    differ = np.flatnonzero((one != other) & (one >= 0) & (other >= 0))
    return ImageFinding(
        "copies",
        str(paths[pair.first]),
        manifest.splits[pair.first],
        other=str(paths[pair.second]),
        other_split=manifest.splits[pair.second],
        disagree=tuple(manifest.labels.keys[int(column)] for column in differ),
        bits=pair.bits,
    )


def _without_any_label(targets: NDArray[np.int8]) -> NDArray[np.int64]:
    return np.flatnonzero((targets >= 0).any(axis=1) & ~(targets == 1).any(axis=1))
