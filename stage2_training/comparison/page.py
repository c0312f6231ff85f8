"""comparison.html: the table and its plots as one page, without network."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from sspa.stage2_training.comparison.definition import Comparison
from sspa.stage2_training.comparison.plots import difference_bars, over_conditions, variant_dots
from sspa.stage2_training.comparison.rows import Row
from sspa.stage2_training.comparison.table import Column, caption, columns_of, headline_columns_of, is_sure
from sspa.stage2_training.pages.templates import write_page


def write_comparison_page(comparison: Comparison, rows: Sequence[Row], path: Path) -> Path:
    """Write the page beside the comparison's runs."""
    columns = columns_of(rows)
    in_title = ("data", "condition", "labels")
    shown = [(title, cell) for title, cell in columns if title not in in_title]
    tables = [shown]
    if headline := headline_columns_of(rows):
        tables.append([*(column for column in shown if column[0] == "variant"), *headline])
    sections = []
    for _, group in groupby(rows, key=lambda row: (row.data, row.condition, row.labels)):
        of_group = list(group)
        title = ", ".join(cell(of_group[0]) for name, cell in columns if name in in_title) or "all variants"
        title += " labels" if any(name == "labels" for name, _ in columns) else ""
        sections.append(
            {
                "title": title,
                "tables": [_table(of_group, own) for own in tables],
                "plots": [
                    variant_dots(of_group, title),
                    *([difference_bars(of_group, comparison.reference, title)] if len(of_group) > 1 else []),
                ],
            }
        )
    return write_page(
        path,
        "comparison.html.jinja",
        about=comparison.about,
        caption=caption(comparison, rows),
        sections=sections,
        lines=_lines(rows),
        definition=yaml.safe_dump(comparison.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "columns": [title for title, _ in columns],
        "rows": [
            {
                "cells": [cell(row) for _, cell in columns],
                "sure": is_sure(row),
                "better": (row.difference or 0) > 0,
            }
            for row in rows
        ],
    }


def _lines(rows: Sequence[Row]) -> list[Markup]:
    """A plot over the conditions per data set and part of the labels, if there are conditions."""
    if len({row.condition for row in rows}) < 2:
        return []
    plots = []
    for data, labels in dict.fromkeys((row.data, row.labels) for row in rows):
        own = [row for row in rows if (row.data, row.labels) == (data, labels)]
        plots.append(over_conditions(own, f"{data or 'the data'}, {labels} labels"))
    return plots
