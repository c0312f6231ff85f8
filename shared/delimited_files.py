"""Tables as spreadsheets and scripts write them: with commas, semicolons or tabs, in UTF-8 or UTF-16."""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from sspa.shared.errors import UserError

_DELIMITERS = (",", ";", "\t")


def delimited_rows(path: Path, names: Collection[str]) -> tuple[str, list[tuple[int, list[str]]]]:
    """The lines of a table that are not blank, the header first.

    Args:
        path: the file.
        names: some column names, folded, by which the delimiter is recognised in the header.

    Returns:
        The delimiter, and each line's number and cells: as many as the header has.

    Raises:
        UserError: it is not a table; the message names the line.
    """
    text = _text(path)
    delimiter = _delimiter(text, names)
    try:
        return delimiter, list(_cells(path, text, delimiter))
    except csv.Error as error:
        raise UserError(f"{path}: not a table ({error}); save it as CSV again") from None


def folded(name: str) -> str:
    """A column's name as it is compared: without space around it, in any case.

    Example:
        >>> folded(" Labels ")
        'labels'
    """
    return name.strip().casefold()


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a CSV in UTF-8 or UTF-16 ({error}); save it as UTF-8") from None


def _delimiter(text: str, names: Collection[str]) -> str:
    """The one that makes a header with one of these columns and the most cells."""
    first = next((line for line in text.splitlines() if line.strip()), "")

    def fit(delimiter: str) -> tuple[bool, int]:
        cells = [folded(cell.strip().strip('"')) for cell in first.split(delimiter)]
        return any(cell in names for cell in cells), len(cells)

    return max(_DELIMITERS, key=fit)


def _cells(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    width = 0
    # Not splitlines(): it would take U+2028 and others within a cell for a line break.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        width = width or len(cells)
        if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
            cells = cells[:width]
        if len(cells) != width:
            raise UserError(
                f"{path}, line {reader.line_num}: has another number of cells ({len(cells)}) than the first line "
                f"({width}); quote cells with {delimiter!r}"
            )
        yield reader.line_num, cells
