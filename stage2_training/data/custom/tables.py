"""Tables of images as people have them: separated by commas, semicolons or tabs, with a column of labels or one each.

A table has a column with the image's path, and either a column of label names ("cat;dog"; "?cat" is unknown), or one
column per label with 1, 0 or -1 (unknown). Columns for the split and an id are optional.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sspa.shared.delimited_files import delimited_rows, folded
from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.data.custom.rows import Row, make_row

# The usual names of columns, in JSON lines too.
IMAGE = ("path", "image", "image_path", "filename", "file_name", "file")
LABELS = ("labels", "label", "tags", "tag", "classes", "class")
SPLIT = ("split", "subset", "set")
ID = ("id", "image_id")
_MARKS = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "": 0, "-1": -1, "-1.0": -1}
_MISSING = "columns are path, labels and, if wanted, split and id; or one column of 1 and 0 for each label"


@dataclass(frozen=True)
class TableColumns:
    """Which columns of a table are meant, where their names do not say so.

    Attributes:
        image: the column with the path; None finds it by its usual names.
        labels: the column with label names, or several of marks; () finds them.
        separator: between the labels in one cell; None is ";", and also "," in a table separated by semicolons.
        group: the column with what images have in common that must stay in one split, such as a patient.
        blank: what an empty cell means: that there is no label, or that nothing is known.
    """

    image: str | None = None
    labels: tuple[str, ...] = ()
    separator: str | None = None
    group: str | None = None
    blank: Literal["none", "unknown"] = "none"


@dataclass(frozen=True)
class _Layout:
    image: int
    names: int | None
    marks: tuple[tuple[int, str], ...]
    split: int | None
    key: int | None
    group: int | None
    separators: tuple[str, ...]
    blank: int


def table_rows(path: Path, columns: TableColumns, split: str = "", within: str = "") -> Iterator[Row]:
    """The rows of a table.

    Args:
        path: the file, in UTF-8 or UTF-16.
        columns: which of them are meant.
        split: of all rows, for a table without that column.
        within: the folder that the table's paths are relative to, with a slash at its end.

    Raises:
        UserError: it is no such table; the message names the line.
    """
    delimiter, lines = delimited_rows(path, _wanted(columns.image, IMAGE))
    (_, header), *table = lines or [(0, [])]
    layout = _layout(path, header, table, columns, delimiter)
    for number, cells in table:
        where = f"{path}, line {number}"
        labels = _labels(where, cells, layout)
        own_split = "" if layout.split is None else cells[layout.split]
        key, group = ("" if place is None else cells[place] for place in (layout.key, layout.group))
        yield make_row(where, within + cells[layout.image].strip(), labels, own_split or split, key, group)


def _layout(
    path: Path, header: Sequence[str], table: Sequence[tuple[int, list[str]]], columns: TableColumns, delimiter: str
) -> _Layout:
    names = [folded(cell) for cell in header]
    image = _one(path, names, _wanted(columns.image, IMAGE), "path", columns.image is not None)
    given = [folded(name) for name in columns.labels]
    if absent := [name for name in given if name not in names]:
        raise UserError(f"{path}: there is no column {absent[0]!r}; it has {', '.join(filter(None, names))}")
    split, key = (_one(path, names, wanted, wanted[0], False) for wanted in (SPLIT, ID))
    group = _one(path, names, (folded(columns.group),), columns.group, True) if columns.group else None
    if image is None:
        raise UserError(f"{path}: the column 'path' is missing; {_MISSING}")
    of_names = _one(path, names, LABELS, "labels", False) if not given else None
    if len(given) == 1 and not _is_marks(table, names.index(given[0])):
        of_names = names.index(given[0])
    rest = [
        place
        for place, name in enumerate(names)
        if name and place not in (image, split, key, group, of_names) and (not given or name in given)
    ]
    marks: tuple[tuple[int, str], ...] = ()
    if of_names is None:
        if other := [place for place in rest if not _is_marks(table, place)]:
            raise UserError(
                f"{path}: the column {header[other[0]].strip()!r} holds other values than 1, 0 and -1; {_MISSING}"
            )
        if not rest:
            raise UserError(f"{path}: the column 'labels' is missing; {_MISSING}")
        marks = tuple((place, header[place].strip()) for place in rest)
    elif unused := [header[place].strip() for place in rest]:
        say(f"{path}: columns that are not used: {', '.join(unused)}")
    usual = (";", ",") if delimiter == ";" else (";",)
    separators = (columns.separator,) if columns.separator else usual
    return _Layout(image, of_names, marks, split, key, group, separators, -1 if columns.blank == "unknown" else 0)


def _labels(where: str, cells: Sequence[str], layout: _Layout) -> list[str]:
    if layout.names is None:
        found = [(name, _MARKS[folded(cells[place])] if cells[place].strip() else layout.blank)
                 for place, name in layout.marks]  # fmt: skip
        return [name if mark > 0 else f"?{name}" for name, mark in found if mark]
    cell = cells[layout.names]
    for separator in layout.separators[1:]:
        cell = cell.replace(separator, layout.separators[0])
    return [label for label in cell.split(layout.separators[0]) if label.strip()]


def _is_marks(table: Sequence[tuple[int, list[str]]], place: int) -> bool:
    return all(folded(cells[place]) in _MARKS for _, cells in table)


def _one(path: Path, names: Sequence[str], wanted: Sequence[str], what: str, given: bool) -> int | None:
    found = [place for place, name in enumerate(names) if name in wanted]
    if len(found) > 1:
        which = " and ".join(repr(names[place]) for place in found)
        raise UserError(f"{path}: {which} could each be the column {what}; rename one, or name it with --image-column")
    if given and not found:
        raise UserError(f"{path}: there is no column {wanted[0]!r}; it has {', '.join(filter(None, names))}")
    return found[0] if found else None


def _wanted(given: str | None, usual: Sequence[str]) -> Sequence[str]:
    return usual if given is None else (folded(given),)
