"""What `data prepare` understood of a user's own data, so that a misreading shows before anything is trained."""

from collections.abc import Mapping
from typing import Any

from sspa.shared.label_sets import fold
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.data.statistics import SplitFigures, split_figures

_ROWS = 3
# What happens without each split.
_WITHOUT = {
    "train": ", so that this can only be evaluated",
    "val": ", so that each run draws a tenth of train",
    "test": ", so that a run's figures are of val, which also chooses its epoch",
}


def understood(manifest: Manifest) -> dict[str, Any]:
    """Labels and splits with counts, the first rows, and what looks odd, as JSON holds it."""
    figures = split_figures(manifest)
    return {
        "images": len(manifest.ids),
        "splits": {name: found.images for name, found in figures.items()},
        "without_any_label": {name: found.unlabelled for name, found in figures.items()},
        "nothing_known": {name: found.blank for name, found in figures.items()},
        "labels": {
            key: {
                "positives": {name: int(found.positives[place]) for name, found in figures.items()},
                "unknown": {name: int(found.unknown[place]) for name, found in figures.items()},
            }
            for place, key in enumerate(manifest.labels.keys)
        },
        "first_rows": [_row(manifest, row) for row in range(min(_ROWS, len(manifest.ids)))],
        "odd": _odd(manifest, figures),
    }


def _odd(manifest: Manifest, figures: Mapping[str, SplitFigures]) -> list[str]:
    """What looks like a mistake, though it may be none; a line each."""
    keys = manifest.labels.keys
    found = []
    for name in ("train", "val", "test"):
        if name not in figures:
            found.append(
                f"there is no {name} split{_WITHOUT[name]}; name it in the column split, or drop that column to have "
                "one drawn"
            )
    if len(keys) > len(manifest.ids):
        found.append(f"there are more labels ({len(keys):,}) than images ({len(manifest.ids):,})")
    folded = {fold(key): key for key in keys}
    for name, key in folded.items():
        if name + "s" in folded:
            found.append(f"labels {key!r} and {folded[name + 's']!r} differ in a plural s: are they two labels?")
    for place, key in enumerate(keys):
        total = sum(int(split.positives[place]) for split in figures.values())
        if total == 1:
            found.append(f"label {key!r} is on one image only")
        missing = [name for name in ("train", "val") if name in figures and not figures[name].positives[place]]
        if total != 1 and missing:
            found.append(f"label {key!r} is on no image of {' and '.join(missing)}")
    if bare := sum(split.unlabelled for split in figures.values()):
        found.append(
            f"{bare:,} of {len(manifest.ids):,} images are without any label (if their labels are not known: "
            "--blank unknown)"
        )
    if blank := sum(split.blank for split in figures.values()):
        found.append(
            f"of {blank:,} of {len(manifest.ids):,} images nothing is known; they are never drawn into a split"
        )
    if across := _groups_across(manifest):
        found.append(f"{len(across):,} groups are in more than one split, such as {across[0]!r}")
    return found


def _groups_across(manifest: Manifest) -> list[str]:
    split_of: dict[str, str] = {}
    across: dict[str, None] = {}
    for group, split in zip(manifest.groups, manifest.splits, strict=False):
        if split_of.setdefault(group, split) != split:
            across[group] = None
    return list(across)


def _row(manifest: Manifest, row: int) -> dict[str, Any]:
    marks = list(zip(manifest.labels.keys, manifest.targets[row].tolist(), strict=True))
    return {
        "id": manifest.ids[row],
        "path": manifest.paths[row],
        "split": manifest.splits[row],
        "labels": [key for key, mark in marks if mark == 1],
        "unknown": [key for key, mark in marks if mark == -1],
    }
