"""Descriptions to a spreadsheet and back; what a person corrects counts as that person's from then on."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from sspa.shared.delimited_files import delimited_rows, folded
from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.holding import held
from sspa.shared.json_files import parse_json
from sspa.shared.knowledge_format import read_table, write_knowledge

COLUMNS = ("label", "text", "sample", "description", "verdict", "reason", "origin")
_NEEDED = ("label", "sample", "description")
MAX_CHARACTERS = 2000
# Also behind apostrophes, so that an apostrophe of one's own comes back.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def export(path: Path, target: Path) -> int:
    """Write the descriptions as CSV or JSON lines, depending on the target's extension.

    Returns:
        The number of rows.

    Raises:
        UserError: another extension, the target exists with other content, or it cannot be written.
    """
    rows = [{name: row[name] for name in COLUMNS} for row in read_table(path)[0].to_pylist()]
    if _kind(target) == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
        # Without the byte order mark, spreadsheets do not recognise UTF-8.
        content = "\ufeff" + text.getvalue()
    else:
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    written = content.encode()
    if target.exists() and target.read_bytes() != written:
        raise UserError(
            f"{target}: exists already with other content, perhaps your corrections; nothing was changed. Bring them "
            f"back with `sspa-knowledge import {path} {target}`, or name another file"
        )
    with replacing(target) as beside:
        beside.write_bytes(written)
    return len(rows)


def _harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: an apostrophe first, as people type it."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _restored(value: Any) -> Any:
    """The reverse of `_harmless`."""
    quoted = isinstance(value, str) and value.startswith("'") and _FORMULA.match(value[1:])
    return value[1:] if quoted else value


def import_(path: Path, source: Path) -> int:
    """Import corrected descriptions into a table; a changed one counts as written by a person.

    Returns:
        The number of descriptions that changed.

    Raises:
        UserError: an unknown label or sample, a duplicate row, or a file that is not what `export` wrote. The
            table is then unchanged.
    """
    if source.suffix.lower() == ".parquet" and path.suffix.lower() != ".parquet":
        raise UserError(f"{path} {source}: are swapped; write sspa-knowledge import {source} {path}")
    with held(path, "wait for it"):
        return _apply(path, source)


def _apply(path: Path, source: Path) -> int:
    rows = read_table(path)[0].to_pylist()
    places = {(row["label"], row["sample"]): row for row in rows}
    seen: set[tuple[str, int]] = set()
    changed = 0
    for where, values in _read(source):
        place = _place(where, values, places, path)
        if place in seen:
            raise UserError(f"{where}: label {place[0]!r}, sample {place[1]} comes twice; remove one row")
        seen.add(place)
        description = " ".join(str(values["description"]).split())
        if not description and places[place]["description"]:
            raise UserError(f"{where}: the description of {place[0]!r} is empty; write one, or remove that row")
        if len(description) > MAX_CHARACTERS:
            raise UserError(f"{where}: the description of {place[0]!r} has {len(description):,} characters; "
                            f"{MAX_CHARACTERS:,} is the limit")  # fmt: skip
        row = places[place]
        if description != row["description"]:
            row |= {"description": description, "origin": "human", "verdict": "good", "reason": ""}
            row |= {"clip_tokens": 0, "clip_cut": "", "attempts": 0, "answers": "[]", "seed": 0, "key": ""}
            row |= dict.fromkeys(("model", "revision", "quantisation", "engine", "prompt", "prompt_hash"), "")
            row |= {"answer_form": "", "sampling": "{}"}
            changed += 1
    if changed:
        from sspa.stage1_knowledge.table import count_clip_tokens

        columns = {name: [row[name] for row in rows] for name in rows[0]}
        count_clip_tokens(columns)
        write_knowledge(
            path, (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        )
    return changed


def _kind(path: Path) -> str:
    kind = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl"}.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path}: the ending says neither .csv nor .jsonl; name the file accordingly")
    return kind


def _read(source: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each row's place and values, by the columns' names."""
    rows = _csv_rows(source) if _kind(source) == "csv" else _json_line_rows(source)
    if not rows:
        raise UserError(f"{source}: has no rows")
    for where, values in rows:
        if missing := [name for name in _NEEDED if values.get(name) is None]:
            raise UserError(f"{where}: lacks the column {missing[0]!r}; export the table to see the form")
    return rows


def _csv_rows(source: Path) -> list[tuple[str, dict[str, Any]]]:
    _, lines = delimited_rows(source, _NEEDED)
    (_, header), *table = lines or [(0, [])]
    names = [folded(name) for name in header]
    return [
        (f"{source}, line {number}", {name: _restored(cell) for name, cell in zip(names, cells, strict=True)})
        for number, cells in table
    ]


def _json_line_rows(source: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: cannot be read as UTF-8 text ({error})") from error
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            values = parse_json(line, f"{source}, line {number}")
            if not isinstance(values, dict):
                raise UserError(f"{source}, line {number}: not a JSON object")
            rows.append((f"{source}, line {number}", values))
    return rows


def _place(where: str, values: dict[str, Any], places: dict[tuple[str, int], Any], path: Path) -> tuple[str, int]:
    label = str(values["label"])
    try:
        sample = int(values["sample"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: sample {values['sample']!r} of label {label!r} is no whole number") from error
    if (label, sample) not in places:
        known = any(label == other for other, _ in places)
        what = f"no sample {sample} of label" if known else "no label"
        raise UserError(f"{where}: {path} has {what} {label!r}; fix or remove that row")
    return label, sample
