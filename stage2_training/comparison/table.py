"""A comparison as a table: its columns, and how it is printed."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

from sspa.shared.tables import MISSING, number, print_table
from sspa.shared.terminal import output
from sspa.stage2_training.comparison.definition import Comparison
from sspa.stage2_training.comparison.rows import Row

Column = tuple[str, Callable[[Row], str]]
_PLACE = ("data", "condition", "labels", "variant")


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Headings and cells of the table; values common to all rows get no column."""
    optional: list[tuple[str, Callable[[Row], str], bool]] = [
        ("data", lambda row: row.data, len({row.data for row in rows}) > 1),
        ("condition", lambda row: row.condition, len({row.condition for row in rows}) > 1),
        ("labels", lambda row: row.labels, len({row.labels for row in rows}) > 1),
        ("variant", lambda row: row.variant, True),
        ("val", lambda row: number(row.val_map), True),
        ("split", lambda row: row.measured, len({row.measured for row in rows}) > 1),
        (measured_map(rows), lambda row: f"{row.test_map:.2f}{_deviation(row)}", True),
        ("region", lambda row: number(row.region_map), True),
        ("global", lambda row: number(row.global_map), True),
        ("difference [95%]", _difference, True),
        ("seeds", lambda row: str(len(row.seeds)), len({row.seeds for row in rows}) > 1),
        ("trained", lambda row: _count(row.trained_parameters), True),
        ("s/epoch", lambda row: number(row.epoch_seconds), True),
        ("s per run", lambda row: f"{row.seconds:.0f}", True),
        ("memory", lambda row: _memory(row.peak_memory_bytes), True),
    ]
    return [(title, cell) for title, cell, shown in optional if shown]


def measured_map(rows: Sequence[Row]) -> str:
    """ "test mAP", or "val mAP" where the data has no test; "mAP" where rows differ in that."""
    splits = {row.measured for row in rows}
    return f"{splits.pop()} mAP" if len(splits) == 1 else "mAP"


def headline_columns_of(rows: Sequence[Row]) -> list[Column]:
    """The protocol's headline figures other than mAP, each at its threshold and at thresholds tuned on val."""
    names = dict.fromkeys(name for row in rows for name in row.headline)
    return [(f"{name} fixed, tuned", partial(_headline, name=name)) for name in names]


def caption(comparison: Comparison, rows: Sequence[Row]) -> str:
    """One line that says what the table shows."""
    seeds = max(len(row.seeds) for row in rows)
    protocols = ", ".join(dict.fromkeys(row.protocol for row in rows))
    headline = "; the protocol's other headline figures at its threshold, and at thresholds tuned on val"
    return (
        f"{comparison.about}; {measured_map(rows)} in percent, mean ± standard deviation of {seeds} "
        f"seed{'s' if seeds > 1 else ''}, difference "
        f"to {comparison.reference} with its 95% interval over images and seeds; protocol {protocols}"
        f"{headline if any(row.headline for row in rows) else ''}"
    )


def show_comparison(comparison: Comparison, rows: Sequence[Row]) -> None:
    """Print the table."""
    columns = columns_of(rows)
    output.print(caption(comparison, rows), markup=False)
    _print(rows, columns)
    if headline := headline_columns_of(rows):
        # A table of its own: with these, the other would not fit a terminal.
        _print(rows, [(title, cell) for title, cell in columns if title in _PLACE] + headline)


def is_sure(row: Row) -> bool:
    """Whether the difference's interval excludes zero."""
    if row.difference_low is None or row.difference_high is None:
        return False
    return row.difference_low > 0 or row.difference_high < 0


def _print(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    sections = [[[cell(row) for _, cell in columns] for row in group] for _, group in groupby(rows, _place)]
    print_table([title for title, _ in columns], sections, left=_PLACE)


def _place(row: Row) -> tuple[str, str, str]:
    return row.data, row.condition, row.labels


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    if row.difference_low is None:
        return f"{row.difference:+.2f}"
    return f"{row.difference:+.2f} [{row.difference_low:+.2f}, {row.difference_high:+.2f}]"


def _headline(row: Row, name: str) -> str:
    return f"{number(row.headline.get(name))}, {number(row.headline_tuned.get(name))}" if name in row.headline else ""


def _deviation(row: Row) -> str:
    return "" if row.test_deviation is None else f" ± {row.test_deviation:.2f}"


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 10_000 else f"{number:,}"


def _memory(size: int | None) -> str:
    return MISSING if size is None else f"{size / 1e9:.1f} GB"
