"""A user's own images as a manifest: from a table, JSON lines, a COCO file, or folders; docs/data.md has the forms.

In JSON lines, `path` is relative to the root and `labels` a list of names; `split` and `id` are optional, and other
fields are ignored. A label prefixed with a question mark ("?cat") is unknown.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from sspa.shared.errors import UserError
from sspa.shared.json_files import parse_json
from sspa.shared.label_sets import LabelSet
from sspa.stage2_training.data.adapters.coco import read_instances
from sspa.stage2_training.data.custom.folders import folder_rows
from sspa.stage2_training.data.custom.rows import Row, known_split, labels_of, make_row, settled
from sspa.stage2_training.data.custom.tables import TableColumns, table_rows
from sspa.stage2_training.data.manifest import SPLITS, Manifest
from sspa.stage2_training.data.splitting import stratified_mask


def read_custom(
    name: str,
    root: Path,
    source: Path | None = None,
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
        source: a .csv, .tsv, .jsonl or COCO .json file; None if `root` has one folder per label.
        label_set: order and texts of the labels; if None, the labels found, sorted.
        val, test: fractions to draw by iterative stratification if the rows name no split.
        seed: of that draw.
        columns: which columns of a table are meant.

    Raises:
        UserError: a malformed file, a label missing from `label_set`, or rows of which only some name a split; the
            message names the row.
    """
    rows = _read_rows(root, source, columns)
    if not rows:
        raise UserError(f"{source or root}: holds no images; see docs/data.md for the forms that are read")
    labels = label_set or labels_of(rows, source or root)
    column = {key: position for position, key in enumerate(labels.keys)}
    targets = np.zeros((len(rows), len(column)), dtype=np.int8)
    for number, row in enumerate(rows):
        for value, keys in ((-1, row.unknown), (1, row.there)):
            for key in keys:
                if key not in column:
                    raise UserError(f"{row.where}: label {key!r} is not in the label set; add it there or fix the row")
                targets[number, column[key]] = value
    manifest = Manifest(
        dataset=name,
        labels=labels,
        protocol="custom",
        note="",
        ids=tuple(row.key or row.path for row in rows),
        paths=tuple(row.path for row in rows),
        splits=tuple(_checked_split(row, rows[0]) for row in rows),
        targets=targets,
    )
    return manifest if rows[0].split else _with_drawn_splits(manifest, val, test, seed)


def _read_rows(root: Path, source: Path | None, columns: TableColumns) -> list[Row]:
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; give the folder with the images as --root")
    if source is None:
        return settled(folder_rows(root, columns), root)
    if not source.is_file():
        raise UserError(f"{source}: there is no such file; give a .csv, .jsonl or COCO .json file")
    readers = {
        **dict.fromkeys((".csv", ".tsv", ".txt"), lambda path: table_rows(path, columns)),
        ".jsonl": _jsonl_rows,
        ".json": _coco_rows,
    }
    ending = source.suffix.lower()
    if ending not in readers:
        raise UserError(f"{source}: unknown form {source.suffix!r}; give a .csv, .jsonl or COCO .json file")
    return settled(readers[ending](source), root)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    # Only \n ends a line: U+2028 and others may be part of a text.
    lines = path.read_bytes().decode("utf-8-sig", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise UserError(f"{where}: an object with path and labels was expected")
        for name in ("path", "labels"):
            if name not in row:
                raise UserError(f"{where}: the column {name!r} is missing; path and labels are needed")
        if not isinstance(row["labels"], list) or not all(isinstance(label, str) for label in row["labels"]):
            raise UserError(f"{where}: labels must be a list of names, not {row['labels']!r}")
        if not isinstance(row["path"], str):
            raise UserError(f"{where}: path must be text, not {row['path']!r}")
        split, key = ("" if row.get(name) is None else str(row[name]) for name in ("split", "id"))
        yield make_row(where, row["path"], row["labels"], split, key)


def _coco_rows(path: Path) -> Iterator[Row]:
    part = read_instances(path)
    for number, (key, file, target) in enumerate(zip(part.ids, part.files, part.targets, strict=True)):
        there = (part.names[column] for column in np.flatnonzero(target))
        yield make_row(f"{path}, image {number}", file, there, "", key)


def _checked_split(row: Row, first: Row) -> str:
    if bool(row.split) != bool(first.split):
        raise UserError(f"{row.where}: some rows name a split and some do not; give it for all or for none")
    if not row.split:
        return "train"
    split = known_split(row.split)
    if split is None:
        raise UserError(f"{row.where}: unknown split {row.split!r}; use {', '.join(SPLITS)}")
    return split


def _with_drawn_splits(manifest: Manifest, val: float, test: float, seed: int) -> Manifest:
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise UserError(f"the shares for val ({val}) and test ({test}) must be above 0 and leave some for training")
    count = len(manifest.ids)
    if count * min(val, test) < 1:
        raise UserError(f"{count} images are too few to draw {val:g} for val and {test:g} for test; name the splits")
    splits = np.full(count, "train", dtype=object)
    splits[stratified_mask(manifest.targets, test, seed)] = "test"
    rest = np.flatnonzero(splits == "train")
    splits[rest[stratified_mask(manifest.targets[rest], val / (1 - test), seed)]] = "val"
    return replace(manifest, splits=tuple(splits))
