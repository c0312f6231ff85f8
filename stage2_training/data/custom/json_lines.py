"""JSON lines: an object per image, also as the `metadata.jsonl` of a Hugging Face image folder.

The image is in `path` (or `file_name`, ...), its labels in `labels` (or `label`, `tags`, ...) as a list of names or as
text in the form of a table's cell. `split` and `id` are optional, and other fields are ignored.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.json_files import parse_json
from sspa.stage2_training.data.custom.rows import Row, make_row
from sspa.stage2_training.data.custom.tables import ID, IMAGE, LABELS, SPLIT, TableColumns


def json_line_rows(path: Path, columns: TableColumns, within: str = "") -> Iterator[Row]:
    """The rows of a file.

    Args:
        path: the file, in UTF-8.
        columns: which fields are meant, where their names do not say so.
        within: the folder that the file's paths are relative to, with a slash at its end.

    Raises:
        UserError: a line is not of this form; the message names it.
    """
    # Only \n ends a line: U+2028 and others may be part of a text.
    lines = path.read_bytes().decode("utf-8-sig", errors="replace").split("\n")
    image_names = (columns.image,) if columns.image else IMAGE
    label_names = columns.labels or LABELS
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise UserError(f"{where}: an object with path and labels was expected")
        image = _field(row, image_names, where, "path")
        if not isinstance(image, str):
            raise UserError(f"{where}: path must be text, not {image!r}")
        labels = _labels(_field(row, label_names, where, "labels"), where, columns)
        split, key = (_optional(row, names) for names in (SPLIT, ID))
        group = _optional(row, (columns.group,)) if columns.group else ""
        yield make_row(where, within + image.strip(), labels, split, key, group)


def _field(row: dict[str, Any], names: tuple[str, ...], where: str, usual: str) -> Any:
    for name in names:
        if name in row:
            return row[name]
    if names == (usual,) or usual in names:
        raise UserError(f"{where}: the column {usual!r} is missing; path and labels are needed")
    raise UserError(f"{where}: has no {names[0]!r}; it has {', '.join(row) or 'nothing'}")


def _labels(value: Any, where: str, columns: TableColumns) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [label for label in value.split(columns.separator or ";") if label.strip()]
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise UserError(f"{where}: labels must be a list of names, not {value!r}")
    return value


def _optional(row: dict[str, Any], names: tuple[str, ...]) -> str:
    value = next((row[name] for name in names if row.get(name) is not None), "")
    return str(value)
