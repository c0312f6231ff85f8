"""A comparison as tables: their columns, and how they are printed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Literal

from sspa.shared.tables import MISSING, number, print_table
from sspa.shared.terminal import output
from sspa.stage2_training.comparison.definition import Comparison, short_name
from sspa.stage2_training.comparison.rows import Row

Column = tuple[str, Callable[[Row], str]]
DIFFERENCE = "difference [95%]"


def tables_of(rows: Sequence[Row]) -> list[list[Column]]:
    """The tables, each as headings and cells: the result, the protocol's other headline figures, branches and costs.

    In one table they would not fit a terminal. Values common to all rows get no column. The first column names the
    variant.
    """
    result: list[Column] = [
        ("val", lambda row: number(row.val_map)),
        *_if_differing("split", lambda row: row.measured, rows),
        (measured_map(rows), lambda row: f"{row.test_map:.2f}{_deviation(row)}"),
        (DIFFERENCE, _difference),
        *_if_differing("seeds", lambda row: str(len(row.seeds)), rows),
    ]
    names = dict.fromkeys(name for row in rows for name in row.headline)
    fixed: list[Column] = [(name, partial(_figure, of="headline", name=name)) for name in names]
    tuned: list[Column] = [(name, partial(_figure, of="headline_tuned", name=name)) for name in names]
    costs: list[Column] = [
        ("region", lambda row: number(row.region_map)),
        ("global", lambda row: number(row.global_map)),
        ("trained", lambda row: _count(row.trained_parameters)),
        ("s/epoch", lambda row: number(row.epoch_seconds)),
        ("s/run", lambda row: f"{row.seconds:.0f}"),
        ("memory", lambda row: _memory(row.peak_memory_bytes)),
    ]
    tables = (("variant", result), ("fixed threshold", fixed), ("tuned thresholds", tuned), ("variant", costs))
    return [[(heading, lambda row: row.variant), *columns] for heading, columns in tables if columns]


def title_of(row: Row, rows: Sequence[Row]) -> str:
    """What distinguishes the row's group from the others of `rows`; "" if there is only one."""
    labels = f"{row.labels} labels" if len({row.labels for row in rows}) > 1 else ""
    return ", ".join(filter(None, (short_name(row.data), row.condition, labels)))


def groups_of(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each data set, condition and part of the labels."""
    return [list(group) for _, group in groupby(rows, lambda row: (row.data, row.condition, row.labels))]


def measured_map(rows: Sequence[Row]) -> str:
    """ "test mAP", or "val mAP" where the data has no test; "mAP" where rows differ in that."""
    splits = {row.measured for row in rows}
    return f"{splits.pop()} mAP" if len(splits) == 1 else "mAP"


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
    """Print the tables."""
    output.print(caption(comparison, rows), markup=False)
    for columns in tables_of(rows):
        sections = []
        for group in groups_of(rows):
            title = title_of(group[0], rows)
            heading = [[title, *[""] * (len(columns) - 1)]] if title else []
            sections.append(heading + [[cell(row) for _, cell in columns] for row in group])
        print_table([name for name, _ in columns], sections, left=[columns[0][0]])


def is_sure(row: Row) -> bool:
    """Whether the difference's interval excludes zero."""
    if row.difference_low is None or row.difference_high is None:
        return False
    return row.difference_low > 0 or row.difference_high < 0


def _if_differing(name: str, cell: Callable[[Row], str], rows: Sequence[Row]) -> list[Column]:
    return [(name, cell)] if len(set(map(cell, rows))) > 1 else []


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    if row.difference_low is None:
        return f"{row.difference:+.2f}"
    return f"{row.difference:+.2f} [{row.difference_low:+.2f}, {row.difference_high:+.2f}]"


def _figure(row: Row, of: Literal["headline", "headline_tuned"], name: str) -> str:
    figures: Mapping[str, float] = getattr(row, of)
    return number(figures[name]) if name in figures else ""


def _deviation(row: Row) -> str:
    return "" if row.test_deviation is None else f" ± {row.test_deviation:.2f}"


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 10_000 else f"{number:,}"


def _memory(size: int | None) -> str:
    return MISSING if size is None else f"{size / 1e9:.1f} GB"
