"""The rows of a user's own data: which file each names, which labels may be, and rows that name the same image."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from posixpath import normpath, splitext

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet, checked_key, fold, text_of_key
from sspa.shared.terminal import say
from sspa.stage2_training.data.manifest import SPLITS

_SPLITS = {
    **{name: name for name in SPLITS},
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}
# What spreadsheets and data frames write into a cell that holds nothing.
_NOTHING = frozenset(("nan", "none", "null", "n/a", "#n/a"))
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_OTHER_SEPARATORS = re.compile(r"[,|;\[\]'\"]")


@dataclass(frozen=True)
class Row:
    """One image as listed by the user; `where` is its place in the file, for messages."""

    where: str
    path: str
    there: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    split: str = ""
    key: str = ""
    group: str = ""


def make_row(where: str, path: str, labels: Iterable[str], split: str, key: str, group: str = "") -> Row:
    """A row of a list, in which "?cat" says that a label is unknown; labels are checked.

    Raises:
        UserError: no path, or a name that no label can have.
    """
    if not path.strip():
        raise UserError(f"{where}: names no image; fill in the path, or remove the row")
    names = [label.strip() for label in labels]
    there = tuple(_key_of(name) or _checked(name, where) for name in names if not name.startswith("?"))
    unknown = tuple(_key_of(name[1:]) or _checked(name[1:], where) for name in names if name.startswith("?"))
    return Row(where, path.strip(), there, unknown, split.strip(), key.strip(), group.strip())


def known_split(name: str) -> str | None:
    """train, val or test by any of its usual names, in any case; None for another name."""
    return _SPLITS.get(name.strip().casefold())


def split_of_path(image: Path, root: Path) -> str:
    """The split that a folder between the root and an image is called after; "" for none."""
    if not image.is_relative_to(root):
        return ""
    return next(filter(None, map(known_split, image.relative_to(root).parts[:-1])), "")


def settled(rows: Iterable[Row], root: Path) -> list[Row]:
    """The rows with their files' own paths, one row for each image.

    Rows of the same file are merged where each has a single label, or where they say the same.

    Raises:
        UserError: a path outside of `root`, or two rows that say different things about one image.
    """
    below = _Root(root)
    located = [row if row.path == (path := below.locate(row)) else replace(row, path=path) for row in rows]
    by_file: dict[str, list[Row]] = {}
    for row in located:
        by_file.setdefault(unicodedata.normalize("NFC", row.path), []).append(row)
    if len(by_file) == len(located):
        return located
    one_label_each = all(len(row.there) + len(row.unknown) <= 1 for row in located)
    say(f"{len(located):,} rows name {len(by_file):,} images; rows of the same image are merged")
    return [_merged(same, one_label_each) for same in by_file.values()]


def labels_of(rows: Sequence[Row], source: Path) -> LabelSet:
    """The labels of the rows, sorted.

    Raises:
        UserError: there are none, two that differ only in case or spacing, or one made of others.
    """
    first: dict[str, str] = {}
    for row in rows:
        for key in (*row.there, *row.unknown):
            first.setdefault(key, row.where)
    if not first:
        raise UserError(f"{source}: no row has a label; write them as label;label in the column labels")
    twins: dict[str, str] = {}
    for key in sorted(first):
        if (other := twins.setdefault(fold(key), key)) != key:
            raise UserError(
                f"{first[key]}: label {key!r} is also written {other!r} ({first[other]}); write it in one way"
            )
    for key in first:
        parts = [part for part in map(fold, _OTHER_SEPARATORS.split(key)) if part]
        if (len(parts) > 1 and all(part in twins for part in parts)) or (parts and key.startswith("[")):
            raise UserError(
                f"{first[key]}: label {key!r} is made of other labels; labels are separated by ; "
                "(or name another with --separator)"
            )
    return LabelSet(source.stem, tuple(Label(key, text_of_key(key, first[key])) for key in sorted(first)))


@lru_cache(maxsize=100_000)
def _key_of(name: str) -> str | None:
    """The key that a label's name stands for; None if checking it has something to say."""
    try:
        return _checked(name, "")
    except UserError:
        return None


def _checked(name: str, where: str) -> str:
    if fold(name) in _NOTHING:
        raise UserError(
            f"{where}: label {name!r} is what a spreadsheet writes for nothing; empty the cell, or rename the label"
        )
    key = checked_key(name, where)
    if not key:
        raise UserError(f"{where}: a label is empty; write a name, or remove it")
    return key


class _Root:
    """The folder that paths are relative to; each folder below it is listed once, however many rows name its files."""

    def __init__(self, root: Path) -> None:
        self.root, self.absolute = root, root.absolute()
        self._names: dict[str, frozenset[str]] = {}

    def locate(self, row: Row) -> str:
        """The row's path below the root, in the form in which the file exists, if it does in any of the usual ones."""
        text = row.path
        if _ABSOLUTE.match(text):
            if not Path(text).is_relative_to(self.absolute):
                raise UserError(
                    f"{row.where}: {text} is an absolute path outside of --root {self.root}; write it relative to that"
                )
            text = Path(text).relative_to(self.absolute).as_posix()
        forms = [normpath(text)]
        if "\\" in text:
            forms.append(normpath(text.replace("\\", "/")))
        for form in forms:
            if form == ".." or form.startswith("../"):
                raise UserError(
                    f"{row.where}: {row.path} leaves --root {self.root}; give the folder above it as --root"
                )
            if self._has(form):
                return form
        stem, ending = splitext(forms[-1])
        for form in (*forms, stem + ending.lower(), stem + ending.upper()):
            for kind in ("NFC", "NFD"):
                if self._has(written := unicodedata.normalize(kind, form)):
                    return written
        if "\\" in text:
            raise UserError(
                f"{row.where}: {row.path} is no file below --root {self.root}, nor with / for \\; correct the path"
            )
        return forms[-1]

    def _has(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(entry.name for entry in (self.absolute / folder).iterdir())
            except (OSError, ValueError):
                self._names[folder] = frozenset()
        return name in self._names[folder]


def _merged(rows: list[Row], one_label_each: bool) -> Row:
    first, *others = rows
    for row in others:
        problem = None
        if row.key != first.key:
            problem = f"with the id {first.key!r}"
        elif row.split != first.split:
            problem = f"with the split {first.split!r}"
        elif row.group != first.group:
            problem = f"with the group {first.group!r}"
        elif not one_label_each and (set(row.there), set(row.unknown)) != (set(first.there), set(first.unknown)):
            problem = "with other labels"
        if problem is not None:
            raise UserError(f"{row.where}: {row.path} is also at {first.where}, {problem}; keep one of these rows")
    there = tuple(dict.fromkeys(label for row in rows for label in row.there))
    unknown = tuple(dict.fromkeys(label for row in rows for label in row.unknown if label not in there))
    return replace(first, there=there, unknown=unknown)
