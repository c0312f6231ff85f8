"""Several runs on one page: their metrics with intervals, and paired differences between comparable runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.stage2_training.config.trees import flat
from sspa.stage2_training.evaluation.bootstrap import Interval
from sspa.stage2_training.evaluation.metrics import Metrics
from sspa.stage2_training.evaluation.paired_bootstrap import difference_interval
from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.pages import plots
from sspa.stage2_training.pages.templates import write_page
from sspa.stage2_training.report.figures import intervals_of, resampled_figures
from sspa.stage2_training.runs.records import ResultRecord, RunRecord
from sspa.stage2_training.runs.run_folder import RunFolder, open_run_folder
from sspa.stage2_training.runs.stored_tensors import read_predictions

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ReportedRun:
    """One finished run with everything that the page needs."""

    name: str
    folder: RunFolder

    @cached_property
    def about(self) -> RunRecord:
        return self.folder.record()

    @cached_property
    def result(self) -> ResultRecord:
        return self.folder.result()

    @cached_property
    def both(self) -> Metrics:
        """The test metrics of the prediction."""
        return self.result.test["both"]

    @cached_property
    def protocol(self) -> Protocol:
        return self.about.protocol.rules()

    @cached_property
    def predictions(self) -> tuple[Floats, NDArray[np.int8]]:
        """The prediction and the targets of the test images, (N, C) each."""
        probabilities, targets = read_predictions(self.folder)
        return probabilities["both"], targets

    @cached_property
    def test_ids(self) -> list[str]:
        return self.folder.test_ids()

    @cached_property
    def resampled(self) -> dict[str, Floats]:
        return resampled_figures(*self.predictions, self.protocol)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        return intervals_of(self.both, self.resampled)


@dataclass(frozen=True)
class Difference:
    """A run's difference to the reference in percentage points, or the `reason` why they are not comparable."""

    run: str
    figures: dict[str, tuple[float, float, float]]
    reason: str = ""


def write_side_by_side(paths: Sequence[Path], out: Path) -> Path:
    """Write the page; the first run is the reference.

    Raises:
        UserError: a folder is not a finished run or is named twice, or `out` exists.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; nothing was changed. Name another file with --out")
    runs = [ReportedRun(name, open_run_folder(path)) for name, path in zip(_names(paths), paths, strict=True)]
    for run in runs:
        if run.about.refit:
            raise UserError(
                f"{run.folder.path}: is a refit, whose figures are those of {run.about.refit.of}; name that"
            )
    reference, *others = runs
    differences = [_difference(run, reference) for run in others]
    compared = [difference for difference in differences if not difference.reason]
    figures = list(dict.fromkeys(name for run in runs for name in run.intervals))
    names = {label.key: label.text for run in reversed(runs) for label in run.folder.knowledge().labels}
    per_class = {run.name: run.both.per_class for run in runs}
    probabilities = {run.name: run.predictions[0] for run in runs}
    targets = {run.name: run.predictions[1] for run in runs}
    return write_page(
        out,
        "side_by_side.html.jinja",
        runs=runs,
        reference=reference.name,
        figures=figures,
        differences=differences,
        difference_figures=[name for name in figures if any(name in difference.figures for difference in compared)],
        labels=[
            {
                "name": names[key],
                "values": (values := [of_run.get(key) for of_run in per_class.values()]),
                "best": max((value for value in values if value is not None), default=None),
            }
            for key in sorted(names, key=lambda key: -per_class[reference.name].get(key, -1.0))
        ],
        settings=differing_settings([run.folder.read_json("config.json") for run in runs]),
        plots={
            "differences": plots.difference_bars(
                {difference.run: difference.figures["mAP"] for difference in compared},
                f"mAP minus that of {reference.name}",
            )
            if compared
            else "",
            "classes": plots.class_dots(per_class, names),
            "val": plots.val_curves({run.name: run.folder.epochs() for run in runs}),
            "precision_recall": plots.precision_recall_curves(probabilities, targets),
            "reliability": plots.reliability_curve(probabilities, targets),
        },
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' own names, or the given paths if two have the same name."""
    resolved = [path.resolve() for path in paths]
    if twice := [path for place, path in enumerate(resolved) if path in resolved[:place]]:
        raise UserError(f"{twice[0]}: is named twice; name different runs")
    short = [path.name for path in resolved]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def why_not_comparable(run: ReportedRun, reference: ReportedRun) -> str:
    """Why a difference between these runs would be meaningless, in words; empty if they are comparable."""
    theirs, ours = run.about, reference.about
    if theirs.protocol != ours.protocol:
        one, other = theirs.protocol, ours.protocol
        return f"another protocol ({one.name} {one.hash}, not {other.name} {other.hash})"
    if theirs.data.name != ours.data.name:
        return f"other data ({theirs.data.name}, not {ours.data.name})"
    if theirs.labels != ours.labels:
        return "other labels, or in another order"
    if run.test_ids != reference.test_ids:
        return f"other test images ({len(run.test_ids)}, not the reference's {len(reference.test_ids)})"
    if not np.array_equal(run.predictions[1], reference.predictions[1]):
        return "the same test images with other annotations"
    return ""


def _difference(run: ReportedRun, reference: ReportedRun) -> Difference:
    if reason := why_not_comparable(run, reference):
        return Difference(run.name, {}, reason)
    figures = {}
    for name, drawn in run.resampled.items():
        interval = difference_interval(100 * drawn[None], 100 * reference.resampled[name][None])
        if interval is not None:
            figures[name] = (100 * (run.both.figure(name) - reference.both.figure(name)), *interval)
    return Difference(run.name, figures)


def differing_settings(trees: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, list[str | None]]]]:
    """The dotted keys that differ between the configurations, with the value in each.

    Returns:
        "shared": keys that all of them have; "own": keys that some lack (of another head), None for those.
    """
    values_of = [flat(tree) for tree in trees]
    found: dict[str, list[tuple[str, list[str | None]]]] = {"shared": [], "own": []}
    for key in dict.fromkeys(key for of_run in values_of for key in of_run):
        values = [str(of_run[key]) if key in of_run else None for of_run in values_of]
        if len(set(values)) > 1:
            found["own" if None in values else "shared"].append((key, values))
    return found
