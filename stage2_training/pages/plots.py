"""The plots of the pages, as SVG that inherits its text colour (light or dark).

Legend: N images, C labels.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sspa.stage2_training.evaluation.metrics import CALIBRATION_BINS, branch_title
from sspa.stage2_training.runs.records import EpochRecord

Floats = NDArray[np.floating[Any]]

# Placeholder for the page's text colour until the SVG is written.
_INK = "#010203"
_COLOURS = ("#3b82c4", "#d97706", "#2a9d6f", "#a855a0", "#c2474b", "#7c8a2e", "#8b6f5a", "#6b7fd7")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sspa",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=_COLOURS),
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


class Plot:
    """A figure being drawn; `svg` is set when it is finished."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure, self.axes = figure, axes
        self.svg = Markup()


@contextmanager
def plot(title: str, width: float = 5.0, height: float = 3.2) -> Iterator[Plot]:
    """Draw within the block; afterwards `svg` contains the figure, with `title` for screen readers."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The page's fonts render the text, so it does not matter which glyphs Matplotlib's fonts have.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height), layout="constrained")
        drawn = Plot(figure, figure.add_subplot())
        yield drawn
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    body = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Several figures share a page, so their ids must not collide.
    prefix = re.sub(r"\W+", "-", title.lower())
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", body)
    head = Markup('<svg role="img" aria-label="{}"').format(title)
    drawn.svg = head + Markup(body.removeprefix("<svg"))


def class_bars(figures: Mapping[str, Mapping[str, float]], names: Mapping[str, str]) -> Markup:
    """AP of each label in percent: a bar for the trained model, a mark for the untrained one.

    Args:
        figures: "test" and "untrained": AP by label key.
        names: each label's display name.
    """
    keys = sorted(figures["test"], key=lambda key: figures["test"][key])
    with plot("AP of each label", height=1.0 + 0.24 * len(keys)) as drawn:
        places = np.arange(len(keys))
        values = [100 * figures["test"][key] for key in keys]
        bars = drawn.axes.barh(places, values, color=_COLOURS[0], label="trained")
        drawn.axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        drawn.axes.scatter(
            [100 * figures["untrained"][key] for key in keys],
            places,
            marker="|",
            s=90,
            linewidths=2.5,
            color=_COLOURS[1],
            label="untrained",
        )
        drawn.axes.set_yticks(places, [names[key] for key in keys])
        drawn.axes.set(xlim=(0, 108), xlabel="average precision, %", ylim=(-0.7, len(keys) - 0.3))
        drawn.figure.legend(loc="outside upper center", ncols=2)
    return drawn.svg


def class_dots(figures: Mapping[str, Mapping[str, float]], names: Mapping[str, str]) -> Markup:
    """AP of each label in percent, one dot per run; labels are sorted by the first run's AP.

    Args:
        figures: AP by label key, by run; a run may lack labels.
        names: each label's display name.
    """
    first = next(iter(figures.values()))
    keys = sorted(names, key=lambda key: first.get(key, -1.0))
    with plot("AP of each label, by run", height=1.2 + 0.24 * len(keys)) as drawn:
        for place, key in enumerate(keys):
            values = [100 * of_run[key] for of_run in figures.values() if key in of_run]
            if values:
                drawn.axes.plot([min(values), max(values)], [place, place], color="gray", linewidth=0.8, zorder=1)
        for run, of_run in figures.items():
            known = [place for place, key in enumerate(keys) if key in of_run]
            drawn.axes.scatter([100 * of_run[keys[place]] for place in known], known, s=22, label=run)
        drawn.axes.set_yticks(range(len(keys)), [names[key] for key in keys])
        drawn.axes.set(xlabel="average precision, %", ylim=(-0.7, len(keys) - 0.3))
        _legend_above(drawn)
    return drawn.svg


def val_curves(lines: Mapping[str, Sequence[EpochRecord]]) -> Markup:
    """mAP on val over the epochs of metrics.jsonl, one curve per run."""
    with plot("mAP on val, by run") as drawn:
        for run, of_run in lines.items():
            values = [100 * line.val["both"].mAP for line in of_run]
            drawn.axes.plot([line.epoch for line in of_run], values, marker="o", markersize=4, label=run)
        drawn.axes.set(xlabel="epoch (0: untrained)", ylabel="mAP on val, %")
        drawn.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend_above(drawn)
    return drawn.svg


def difference_bars(differences: Mapping[str, tuple[float, float, float]], title: str) -> Markup:
    """Differences in points with their intervals, (value, low, high) by name; the first on top."""
    with plot(title, height=1.0 + 0.3 * len(differences)) as drawn:
        drawn.axes.axvline(0, color="gray", linestyle=":", linewidth=1)
        places = range(len(differences) - 1, -1, -1)
        for place, (value, low, high) in zip(places, differences.values(), strict=True):
            drawn.axes.plot([low, high], [place, place], color=_COLOURS[0], linewidth=2)
            drawn.axes.scatter([value], [place], s=26, color=_COLOURS[0], zorder=3)
        drawn.axes.set_yticks(list(places), list(differences))
        drawn.axes.set(xlabel="points", ylim=(-0.6, len(differences) - 0.4))
    return drawn.svg


def training_curves(lines: Sequence[EpochRecord]) -> list[Markup]:
    """Loss, and mAP on val by branch, over the epochs of metrics.jsonl."""
    epochs = [line.epoch for line in lines]
    with plot("Training loss") as loss:
        trained = {line.epoch: line.loss for line in lines if line.loss is not None}
        loss.axes.plot(list(trained), list(trained.values()), marker="o")
        loss.axes.set(xlabel="epoch", ylabel="loss, mean of the epoch")
        loss.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    with plot("mAP on val") as val:
        for branch in lines[0].val:
            val.axes.plot(
                epochs, [100 * line.val[branch].mAP for line in lines], marker="o", label=branch_title(branch)
            )
        val.axes.set(xlabel="epoch (0: untrained)", ylabel="mAP on val, %")
        val.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        val.axes.legend()
    return [loss.svg, val.svg]


def precision_recall_curves(
    probabilities: Mapping[str, Floats], targets: NDArray[np.int8] | Mapping[str, NDArray[np.int8]]
) -> Markup:
    """Precision over recall of all known cells together, one curve per branch, or per run with its own targets."""
    from sklearn.metrics import precision_recall_curve

    with plot("Precision and recall") as drawn:
        for branch, values in probabilities.items():
            truth = targets[branch] if isinstance(targets, Mapping) else targets
            known = truth >= 0
            precision, recall, _ = precision_recall_curve(truth[known], values[known])
            # A thousand points are enough to draw the curve.
            kept = np.unique(np.linspace(0, len(recall) - 1, 1000).astype(int))
            drawn.axes.plot(100 * recall[kept], 100 * precision[kept], label=branch)
        drawn.axes.set(xlabel="recall, %", ylabel="precision, %", xlim=(0, 101), ylim=(0, 101))
        _legend_above(drawn)
    return drawn.svg


def reliability_curve(
    probabilities: Mapping[str, Floats], targets: NDArray[np.int8] | Mapping[str, NDArray[np.int8]]
) -> Markup:
    """The frequency of labels over their predicted probability; a calibrated model lies on the diagonal."""
    with plot("Reliability") as drawn:
        drawn.axes.plot([0, 100], [0, 100], color="gray", linestyle=":", linewidth=1)
        for branch, values in probabilities.items():
            truth = targets[branch] if isinstance(targets, Mapping) else targets
            known = truth >= 0
            bins = np.minimum((values[known] * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
            count = np.bincount(bins, minlength=CALIBRATION_BINS)
            filled = count > 0
            claimed = np.bincount(bins, values[known], CALIBRATION_BINS)[filled] / count[filled]
            seen = np.bincount(bins, truth[known], CALIBRATION_BINS)[filled] / count[filled]
            drawn.axes.plot(100 * claimed, 100 * seen, marker="o", markersize=3, label=branch)
        drawn.axes.set(xlabel="probability, %", ylabel="frequency, %", xlim=(0, 101), ylim=(0, 101))
        _legend_above(drawn)
    return drawn.svg


def co_occurrence(present: NDArray[np.bool_], names: Sequence[str], title: str) -> Markup:
    """(N, C) decisions or targets -> the share of images with the row's label that also have the column's."""
    both = present.T.astype(float) @ present
    having = np.diagonal(both)[:, None]
    share = np.divide(100 * both, having, out=np.full_like(both, np.nan), where=having > 0)
    np.fill_diagonal(share, np.nan)
    side = 1.6 + 0.17 * len(names)
    with plot(title, width=side + 0.7, height=side) as drawn:
        shades = drawn.axes.imshow(share, cmap="viridis", vmin=0, vmax=100)
        places = range(len(names))
        drawn.axes.set_xticks(places, names, rotation=90, fontsize=8)
        drawn.axes.set_yticks(places, names, fontsize=8)
        drawn.figure.colorbar(shades, shrink=0.7, label="%")
    return drawn.svg


def _legend_above(drawn: Plot) -> None:
    """Outside the axes, where it covers no curve; one column, since runs have long names."""
    handles, labels = drawn.axes.get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 16 else min(len(labels), 3)
    drawn.figure.legend(handles, labels, loc="outside upper center", ncols=columns)
