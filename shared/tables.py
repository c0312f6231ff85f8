"""The one way to print tables: cells are escaped, numbers right-aligned, missing values shown as a dash."""

import math
from collections.abc import Collection, Iterable, Sequence

from sspa.shared.terminal import output, printable

MISSING = "-"


def print_table(
    columns: Sequence[str],
    sections: Iterable[Iterable[Sequence[object]]],
    *,
    title: str | None = None,
    left: Collection[str] | None = None,
) -> None:
    """Print a table to standard output, with a line between sections.

    Args:
        columns: the column headings.
        sections: the rows of each section; a cell is shown as `str(cell)`, None as a dash.
        title: shown above the table.
        left: the left-aligned columns; the others hold numbers and are right-aligned. None: all are left-aligned.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=None if title is None else escape(title))
    for column in columns:
        right = left is not None and column not in left
        table.add_column(escape(column), justify="right" if right else "left", overflow="fold")
    for section in sections:
        table.add_section()
        for row in section:
            table.add_row(*(escape(MISSING if cell is None else printable(str(cell))) for cell in row))
    output.print(table)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The same as Markdown, for pasting into a document."""
    return "\n".join(map(markdown_row, (columns, ["---"] * len(columns), *rows)))


def markdown_row(cells: Sequence[object]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def number(value: float | None, digits: int = 2) -> str:
    """A number with `digits` decimals; a dash for None and NaN."""
    return MISSING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(share: float | None, digits: int = 2) -> str:
    """A fraction in percent, without the percent sign; a dash for None and NaN."""
    return number(None if share is None else 100 * share, digits)
