"""comparison.html: the tables, plots and origin of a comparison as one page, without network."""

from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from markupsafe import Markup

from sspa.stage2_training.comparison.definition import Comparison, short_name
from sspa.stage2_training.comparison.plan import PlannedRun
from sspa.stage2_training.comparison.plots import difference_bars, over_conditions, variant_dots
from sspa.stage2_training.comparison.provenance import facts_of, overrides, shared_settings
from sspa.stage2_training.comparison.rows import Row
from sspa.stage2_training.comparison.table import DIFFERENCE, Column, caption, groups_of, is_sure, tables_of, title_of
from sspa.stage2_training.pages.templates import write_page

# A page of a thousand labels would be slow to open; the Parquet file has all.
_MOST_LABELS = 200


def write_comparison_page(
    comparison: Comparison, rows: Sequence[Row], runs: Sequence[PlannedRun], command: str, path: Path
) -> Path:
    """Write the page beside the comparison's runs.

    Args:
        runs: those of `rows` that are finished.
        command: the command that made the comparison.
    """
    titled = [(title_of(group[0], rows) or "all variants", group) for group in groups_of(rows)]
    return write_page(
        path,
        "comparison.html.jinja",
        about=comparison.about,
        caption=caption(comparison, rows),
        lines=_lines(rows),
        sections=[
            {
                "title": title,
                "tables": [_table(group, columns) for columns in tables_of(rows)],
                "plots": [
                    variant_dots(group, title),
                    *([difference_bars(group, comparison.reference, title)] if len(group) > 1 else []),
                ],
                "per_label": _per_label(group, comparison.reference),
                "runs": _runs(group, runs, path.parent),
            }
            for title, group in titled
        ],
        most_labels=_MOST_LABELS,
        reference=comparison.reference,
        command=command,
        facts=facts_of(runs),
        settings=shared_settings(runs),
        own=[
            (kind, overrides(of))
            for kind, of in (
                ("variant", comparison.variants),
                ("condition", comparison.conditions),
                ("data", comparison.data),
            )
            if of
        ],
        definition=yaml.safe_dump(comparison.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "columns": [title for title, _ in columns],
        "rows": [
            [{"text": cell(row), "verdict": _verdict(row) if title == DIFFERENCE else ""} for title, cell in columns]
            for row in rows
        ],
    }


def _verdict(row: Row) -> str:
    return ("good" if (row.difference or 0) > 0 else "bad") if is_sure(row) else ""


def _per_label(rows: Sequence[Row], reference: str) -> dict[str, Any] | None:
    """AP of each label with the reference, and the differences of the others to it; what differs most comes first."""
    base = next((row.per_label for row in rows if row.variant == reference), None)
    others = [row for row in rows if row.variant != reference]
    if base is None or not others:
        return None
    # A variant whose run with some seed is missing may lack a label that was unseen with that seed only.
    found = [(key, ap, [row.per_label.get(key, nan) - ap for row in others]) for key, ap in base.items()]
    found.sort(key=lambda label: -max((abs(value) for value in label[2] if not isnan(value)), default=0.0))
    return {"variants": [row.variant for row in others], "labels": found[:_MOST_LABELS], "count": len(found)}


def _runs(rows: Sequence[Row], runs: Sequence[PlannedRun], page: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """The runs of each variant: mAP, and the relative address of the report, or of the folder that has none."""
    place = (rows[0].data, rows[0].condition)
    own = {(run.variant, run.seed): run for run in runs if (run.group.data, run.group.condition) == place}
    return [
        (
            row.variant,
            [
                {"seed": seed, "map": value, "address": _address(own[row.variant, seed], page)}
                for seed, value in zip(row.seeds, row.values, strict=True)
            ],
        )
        for row in rows
    ]


def _address(run: PlannedRun, page: Path) -> str:
    report = run.path / "report.html"
    return quote((report if report.is_file() else run.path).relative_to(page).as_posix())


def _lines(rows: Sequence[Row]) -> list[Markup]:
    """A plot over the conditions per data set and part of the labels, if there are conditions."""
    if len({row.condition for row in rows}) < 2:
        return []
    plots = []
    for data, labels in dict.fromkeys((row.data, row.labels) for row in rows):
        own = [row for row in rows if (row.data, row.labels) == (data, labels)]
        plots.append(over_conditions(own, f"{short_name(data) or 'the data'}, {labels} labels"))
    return plots
