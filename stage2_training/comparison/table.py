"""A comparison as a table on the terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from sspa.shared.terminal import output
from sspa.stage2_training.comparison.compare import Row
from sspa.stage2_training.comparison.definition import Comparison


def show_comparison(comparison: Comparison, rows: Sequence[Row]) -> None:
    """One row a variant: test mAP with its deviation over seeds, and the difference with its 95% interval."""
    table = Table(
        title=f"{comparison.about}; test mAP, mean of {rows[0].seeds} seeds (difference to {comparison.reference})",
        box=box.SIMPLE_HEAD,
    )
    for column in ("variant", "val", "test", "region", "global", "difference [95%]", "trained", "s a run"):
        table.add_column(column, justify="left" if column == "variant" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.variant,
            f"{row.val_map:.2f}",
            f"{row.test_map:.2f} ± {row.test_deviation:.2f}",
            _figure(row.region_map),
            _figure(row.global_map),
            ""
            if row.difference is None
            else f"{row.difference:+.2f} [{row.difference_low:+.2f}, {row.difference_high:+.2f}]",
            f"{row.trained_parameters / 1e6:.2f} M",
            f"{row.seconds:.0f}",
        )
    output.print(table)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
