"""The plots of a comparison's page."""

from collections.abc import Sequence
from itertools import cycle

from markupsafe import Markup

from sspa.stage2_training.comparison.rows import Row
from sspa.stage2_training.comparison.table import measured_map
from sspa.stage2_training.pages.plots import plot


def variant_dots(rows: Sequence[Row], title: str) -> Markup:
    """Test mAP of each variant, the first on top: a dot per seed, a bar at their mean."""
    measured = measured_map(rows)
    with plot(f"{measured}: {title}", height=0.9 + 0.3 * len(rows)) as drawn:
        places = range(len(rows) - 1, -1, -1)
        for place, row in zip(places, rows, strict=True):
            drawn.axes.scatter(row.values, [place] * len(row.values), s=18, alpha=0.6, color="C0")
            drawn.axes.scatter([row.test_map], [place], marker="|", s=160, color="C1")
        drawn.axes.set_yticks(list(places), [row.variant for row in rows])
        drawn.axes.set(xlabel=f"{measured}, % (dots: seeds, bar: mean)", ylim=(-0.6, len(rows) - 0.4))
    return drawn.svg


def difference_bars(rows: Sequence[Row], reference: str, title: str) -> Markup:
    """Difference of each variant to the reference, with its interval."""
    shown = [row for row in rows if row.difference is not None]
    with plot(f"Difference to {reference}: {title}", height=0.9 + 0.3 * len(shown)) as drawn:
        places = list(range(len(shown) - 1, -1, -1))
        drawn.axes.axvline(0, color="gray", linestyle=":", linewidth=1)
        for place, row in zip(places, shown, strict=True):
            if row.difference is not None:
                drawn.axes.scatter([row.difference], [place], s=24, color="C0", zorder=3)
            if row.difference_low is not None and row.difference_high is not None:
                drawn.axes.plot([row.difference_low, row.difference_high], [place, place], color="C0", linewidth=2)
        drawn.axes.set_yticks(places, [row.variant for row in shown])
        drawn.axes.set(xlabel=f"mAP minus that of {reference}, points", ylim=(-0.6, len(shown) - 0.4))
    return drawn.svg


def over_conditions(rows: Sequence[Row], title: str) -> Markup:
    """Test mAP over the conditions: a line per variant, with error bars of one standard deviation over seeds.

    If the conditions differ in how many images are trained on, these are the x axis.
    """
    conditions = list(dict.fromkeys(row.condition for row in rows))
    images = _images_of(rows, conditions)
    places = images if images is not None else [float(place) for place in range(len(conditions))]
    with plot(f"Over conditions: {title}", height=3.6) as drawn:
        # There can be more variants than colours; markers distinguish them.
        for variant, marker in zip(dict.fromkeys(row.variant for row in rows), cycle("osD^vPX"), strict=False):
            own = [row for row in rows if row.variant == variant]
            drawn.axes.errorbar(
                [places[conditions.index(row.condition)] for row in own],
                [row.test_map for row in own],
                yerr=[row.test_deviation or 0.0 for row in own],
                marker=marker,
                markersize=5,
                capsize=2,
                label=variant,
            )
        if images is None:
            drawn.axes.set_xticks(places, conditions, rotation=45, ha="right")
        else:
            drawn.axes.set_xscale("log")
            drawn.axes.set_xticks(places, [f"{count:.0f}" for count in images])
            drawn.axes.minorticks_off()
            drawn.axes.set(xlabel="labelled training images")
        drawn.axes.set(ylabel=f"{measured_map(rows)}, %")
        drawn.figure.legend(loc="outside upper center", ncols=2)
    return drawn.svg


def _images_of(rows: Sequence[Row], conditions: Sequence[str]) -> list[float] | None:
    """How many images each condition trains on; None unless that is known and different for each."""
    found = {row.condition: row.train_images for row in rows}
    counts = [count for condition in conditions if (count := found[condition]) is not None]
    return counts if len(set(counts)) == len(conditions) else None
