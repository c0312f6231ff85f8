"""A user's own images as a manifest: from a CSV, JSON lines, a COCO file, or one folder per label.

In a CSV or JSON lines file, `path` is relative to the root, and `labels` are the present labels ("cat;dog" in a CSV, a
list in JSON). A label prefixed with a question mark ("?cat") is unknown. `split` and `id` are optional.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sspa.shared.errors import UserError
from sspa.shared.json_files import parse_json
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.adapters.coco import read_instances
from sspa.stage2_training.data.manifest import SPLITS, Manifest
from sspa.stage2_training.data.splitting import stratified_mask

IMAGE_ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
_COLUMNS = ("path", "labels", "split", "id")


@dataclass(frozen=True)
class Row:
    """One image as listed by the user; `where` is its place in the file, for messages."""

    where: str
    path: str
    there: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    split: str = ""
    key: str = ""


def read_custom(
    name: str,
    root: Path,
    source: Path | None = None,
    label_set: LabelSet | None = None,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Manifest:
    """The manifest of a user's own data.

    Args:
        name: the name of the data in results.
        root: the folder that paths are relative to.
        source: a .csv, .jsonl or COCO .json file; None if `root` has one folder per label.
        label_set: order and texts of the labels; if None, the labels found, sorted.
        val, test: fractions to draw by iterative stratification if the rows name no split.
        seed: of that draw.

    Raises:
        UserError: a malformed file, a label missing from `label_set`, or rows of which only some name a split; the
            message names the row.
    """
    rows = _read_rows(root, source)
    if not rows:
        raise UserError(f"{source or root}: holds no images; see docs/data.md for the forms that are read")
    labels = label_set or _labels_of(rows, source or root)
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


def _read_rows(root: Path, source: Path | None) -> list[Row]:
    if source is None:
        if not root.is_dir():
            raise UserError(f"{root}: there is no such folder; give the folder with the images as --root")
        return list(_folder_rows(root))
    if not source.is_file():
        raise UserError(f"{source}: there is no such file; give a .csv, .jsonl or COCO .json file")
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _coco_rows}
    if source.suffix not in readers:
        raise UserError(f"{source}: unknown form {source.suffix!r}; give a .csv, .jsonl or COCO .json file")
    return list(readers[source.suffix](source))


def _csv_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for number, row in enumerate(reader, start=2):
                where = f"{path}, line {number}"
                if None in row or None in row.values():
                    raise UserError(
                        f"{where}: has another number of cells than the first line; quote cells with commas"
                    )
                labels = [label.strip() for label in row["labels"].split(";") if label.strip()]
                yield _row(where, row["path"], labels, row.get("split") or "", row.get("id") or "")
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV in UTF-8 ({error})") from None


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise UserError(f"{where}: an object with path and labels was expected")
        _check_columns(where, tuple(row))
        if not isinstance(row["labels"], list) or not all(isinstance(label, str) for label in row["labels"]):
            raise UserError(f"{where}: labels must be a list of names, not {row['labels']!r}")
        yield _row(where, str(row["path"]), row["labels"], str(row.get("split", "")), str(row.get("id", "")))


def _coco_rows(path: Path) -> Iterator[Row]:
    part = read_instances(path)
    for number, (key, file, target) in enumerate(zip(part.ids, part.files, part.targets, strict=True)):
        there = tuple(part.names[column] for column in np.flatnonzero(target))
        yield Row(f"{path}, image {number}", file, there, key=key)


def _folder_rows(root: Path) -> Iterator[Row]:
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        for image in sorted(folder.rglob("*")):
            if image.suffix.lower() in IMAGE_ENDINGS:
                path = image.relative_to(root).as_posix()
                yield Row(path, path, (folder.name,))


def _row(where: str, path: str, labels: Sequence[str], split: str, key: str) -> Row:
    there = tuple(label for label in labels if not label.startswith("?"))
    unknown = tuple(label.removeprefix("?").strip() for label in labels if label.startswith("?"))
    return Row(where, path.strip(), there, unknown, split.strip(), key.strip())


def _check_columns(where: object, columns: Sequence[str]) -> None:
    wrong = [name for name in columns if name not in _COLUMNS]
    missing = [name for name in ("path", "labels") if name not in columns]
    if wrong or missing:
        problem = f"unknown column {wrong[0]!r}" if wrong else f"the column {missing[0]!r} is missing"
        raise UserError(f"{where}: {problem}; columns are path, labels and, if wanted, split and id")


def _labels_of(rows: Sequence[Row], source: Path) -> LabelSet:
    keys = sorted({key for row in rows for key in (*row.there, *row.unknown)})
    if not keys:
        raise UserError(f"{source}: no row has a label; write them as label;label in the column labels")
    return LabelSet(source.stem, tuple(Label(key, key) for key in keys))


def _checked_split(row: Row, first: Row) -> str:
    if bool(row.split) != bool(first.split):
        raise UserError(f"{row.where}: some rows name a split and some do not; give it for all or for none")
    if row.split and row.split not in SPLITS:
        raise UserError(f"{row.where}: unknown split {row.split!r}; use {', '.join(SPLITS)}")
    return row.split or "train"


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
