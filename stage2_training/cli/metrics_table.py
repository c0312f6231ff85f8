"""The table of an evaluation's headline metrics."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING

from sspa.shared.tables import percent, print_table
from sspa.shared.terminal import output

if TYPE_CHECKING:
    from sspa.stage2_training.evaluation.metrics import Metrics


def show_metrics(
    title: str, metrics: "Mapping[str, Metrics]", headline: Sequence[str], unseen: Sequence[str] = ()
) -> None:
    """Print the headline metrics in percent, one row per branch; mAP of seen and unseen labels separately."""
    from sspa.stage2_training.evaluation.metrics import branch_title

    first = next(iter(metrics.values()))
    # The metrics usually quoted for this data come first, such as mA for pedestrian attributes.
    always = ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1", f"CF1@{first.top_k}", f"OF1@{first.top_k}")
    columns = list(dict.fromkeys((*headline, *always)))
    parts = {
        f"mAP {name}": [key for key in first.per_class if (key in unseen) == (name == "unseen")]
        for name in ("seen", "unseen")
        if any(key in unseen for key in first.per_class)
    }
    rows = []
    for name, figures in metrics.items():
        values = [sum(figures.per_class[key] for key in keys) / len(keys) if keys else nan for keys in parts.values()]
        values += [figures.figure(column) for column in columns]
        rows.append((branch_title(name), *map(percent, values)))
    print_table(
        ("", *parts, *columns),
        [rows],
        title=f"{title}: {first.images} images, protocol {first.protocol} ({first.protocol_hash})",
        left=("",),
    )
    for description in sorted({figures.thresholds for figures in metrics.values()}):
        output.print(f"thresholds: {description}", markup=False)
    if first.absent:
        output.print(f"no positives, so no AP and in no mean: {', '.join(first.absent)}", markup=False)
