"""One way to print tables: cells are escaped, numbers are set right, what is missing is a dash."""

import math
from collections.abc import Collection, Iterable, Sequence

from sspa.shared.terminal import output

MISSING = "-"


def print_table(
    columns: Sequence[str],
    sections: Iterable[Iterable[Sequence[object]]],
    *,
    title: str | None = None,
    left: Collection[str] | None = None,
) -> None:
    """Print a table to standard output; a line separates its sections.

    Args:
        columns: the titles.
        sections: the rows of each section; a cell is shown as `str(cell)`, None as a dash.
        left: the columns that are set left; the others, numbers, are set right. None: all are set left.
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
            table.add_row(*(escape(MISSING if cell is None else str(cell)) for cell in row))
    output.print(table)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The same as Markdown, for figures that are pasted into a document."""
    return "\n".join(map(markdown_row, (columns, ["---"] * len(columns), *rows)))


def markdown_row(cells: Sequence[object]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many digits; a dash for None and for nan."""
    return MISSING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share of 1 in percent, without the sign; a dash for None and for nan."""
    return number(None if share is None else 100 * share, digits)
