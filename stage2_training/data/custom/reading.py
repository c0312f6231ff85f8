"""A user's own images as a manifest: from a table, a tool's annotations, or folders; docs/data.md has the forms.

A label prefixed with a question mark ("?cat") is unknown.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sspa.shared.errors import UserError
from sspa.shared.label_sets import LabelSet, fold
from sspa.shared.terminal import say
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder
from sspa.stage2_training.data.custom.annotation_tools.recognition import annotated_folder_rows, file_rows
from sspa.stage2_training.data.custom.folders import folder_rows
from sspa.stage2_training.data.custom.rows import Row, known_split, labels_of, settled
from sspa.stage2_training.data.custom.tables import TableColumns
from sspa.stage2_training.data.manifest import SPLITS, Manifest
from sspa.stage2_training.data.splitting import with_drawn_splits
from sspa.stage2_training.evaluation.protocols import get_protocol

_SHOWN = 10


class Source(NamedTuple):
    """A list of images; `split` is that of all its rows, "" if they name it themselves or have none."""

    path: Path
    split: str = ""

    @classmethod
    def parse(cls, text: str, several: bool) -> "Source":
        """A file, or "val=FILE"; of several files, each is a split, by its name if need be (train.csv).

        Raises:
            UserError: of several files, this one's split cannot be told.
        """
        before, equals, after = text.partition("=")
        if equals and (split := known_split(before)) and not Path(text).exists():
            return cls(Path(after), split)
        path = Path(text)
        if not several:
            return cls(path)
        words = "".join(letter if letter.isalpha() else " " for letter in path.stem).split()
        found = {split for word in words if (split := known_split(word))}
        if len(found) != 1:
            raise UserError(
                f"--source {text}: of which split? With several sources, write train=FILE, val=FILE, test=FILE"
            )
        return cls(path, found.pop())


def read_custom(
    name: str,
    root: Path,
    sources: Path | Sequence[Source] = (),
    label_set: LabelSet | None = None,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    columns: TableColumns = TableColumns(),
) -> Manifest:
    """The manifest of a user's own data.

    Args:
        name: the name of the data in results.
        root: the folder that paths are relative to.
        sources: lists of images, or folders with annotations; without any, what lies in `root`.
        label_set: order and texts of the labels, other labels are left out; if None, the labels found, sorted.
        val, test: fractions to draw by iterative stratification if the rows name no split.
        seed: of that draw.
        columns: which columns of a table are meant, and what empty cells mean.

    Raises:
        UserError: a malformed file, or rows of which only some name a split; the message names the row.
    """
    lists = (Source(sources),) if isinstance(sources, Path) else tuple(sources)
    rows = _read_rows(root, lists, columns)
    origin = lists[0].path if lists else root
    if not rows:
        raise UserError(f"{origin}: holds no images; see docs/data.md for the forms that are read")
    labels = label_set or labels_of(rows, origin)
    column = {key: position for position, key in enumerate(labels.keys)}
    targets = np.zeros((len(rows), len(column)), dtype=np.int8)
    left_out: Counter[str] = Counter()
    for number, row in enumerate(rows):
        if columns.blank == "unknown" and not row.there and not row.unknown:
            targets[number] = -1
        for value, keys in ((-1, row.unknown), (1, row.there)):
            for key in keys:
                if key in column:
                    targets[number, column[key]] = value
                else:
                    left_out[key] += 1
    if left_out:
        _say_left_out(left_out, labels, rows)
    manifest = Manifest(
        dataset=name,
        labels=labels,
        protocol=get_protocol("custom"),
        note="",
        ids=Texts(row.key or row.path for row in rows),
        paths=Texts(row.path for row in rows),
        splits=Texts(_checked_split(row, rows[0]) for row in rows),
        targets=targets,
        # An image without a group is one by itself.
        groups=Texts((row.group or f"(alone) {row.path}" for row in rows) if columns.group else ()),
    )
    return manifest if rows[0].split else with_drawn_splits(manifest, val, test, seed)


def _read_rows(root: Path, sources: Sequence[Source], columns: TableColumns) -> list[Row]:
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; give the folder with the images as --root")
    images = ImageFinder(root)
    if not sources:
        return settled(folder_rows(root, columns, images), root)
    return settled((row for source in sources for row in _source_rows(source, columns, images)), root)


def _source_rows(source: Source, columns: TableColumns, images: ImageFinder) -> Iterator[Row]:
    path, split = source
    if path.is_dir():
        found = annotated_folder_rows(path, images, columns)
        if found is None:
            raise UserError(f"{path}: holds no annotations of a form that is read; see docs/data.md")
    elif not path.is_file():
        raise UserError(f"{path}: there is no such file; give a list of images, or leave --source out")
    else:
        found = file_rows(path, images, columns)
    for row in found:
        if split and row.split and known_split(row.split) != split:
            raise UserError(f"{row.where}: names the split {row.split!r} in the file of {split}; correct one of them")
        yield row if row.split or not split else replace(row, split=split)


def _say_left_out(left_out: Counter[str], labels: LabelSet, rows: Sequence[Row]) -> None:
    """Say which labels of the rows are not in the label set.

    Raises:
        UserError: one of them is in it in another spelling, or all are missing.
    """
    in_set = {fold(key): key for key in labels.keys}
    for key in left_out:
        if (other := in_set.get(fold(key))) is not None:
            where = next(row.where for row in rows if key in (*row.there, *row.unknown))
            raise UserError(f"{where}: label {key!r} is {other!r} in the label set; write it in one way")
    shown = ", ".join(f"{key} ({count:,})" for key, count in left_out.most_common(_SHOWN))
    more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    say(f"labels that are not in the label set are left out, with how many images have them: {shown}{more}")


def _checked_split(row: Row, first: Row) -> str:
    if bool(row.split) != bool(first.split):
        raise UserError(f"{row.where}: some rows name a split and some do not; give it for all or for none")
    if not row.split:
        return "train"
    split = known_split(row.split)
    if split is None:
        raise UserError(f"{row.where}: unknown split {row.split!r}; use {', '.join(SPLITS)}")
    return split
