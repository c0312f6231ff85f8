"""The table of a comparison: means, deviations, paired differences, costs.

Legend: N images, C labels, S seeds, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, Literal

import numpy as np

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.stage2_training.comparison.definition import Group
from sspa.stage2_training.comparison.resampled import resampled_test_map
from sspa.stage2_training.evaluation.metrics import Metrics, evaluate_scores
from sspa.stage2_training.evaluation.paired_bootstrap import difference_interval
from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions

RESAMPLES = 1000

# Columns that hold a figure by name.
_MAPS = ("per_label", "headline", "headline_tuned")

Labels = Literal["all", "seen", "unseen"]
BySeed = Mapping[int, RunFolder]


@dataclass(frozen=True)
class Row:
    """One variant over its seeds, on one group's test split; mAP in percent, over the labels named by `labels`.

    Attributes:
        protocol: name and hash.
        measured: the split that everything but `val_map` is of: val where the data has no test.
        values: test mAP of each seed, in the order of `seeds`; `test_map` and `test_deviation` summarise them.
        val_map: None if val has no positives of these labels.
        region_map, global_map: of each branch alone; None if the head has no such branch.
        per_label: AP by label key in percent, the mean over seeds that scored it.
        headline: the protocol's headline figures other than mAP by name, in percent, at its threshold: means over
            seeds, of all labels only.
        headline_tuned: the same with the thresholds tuned on val, one for each label.
        difference: to the reference variant, over the seeds that both have, with its 95% interval over test images
            and seeds; None for the reference itself.
        train_images: the mean over seeds; None if it was not recorded.
        seconds: the median over seeds, since the first run may have computed the features for all.
        epoch_seconds: of training, the median over seeds; None if nothing was trained or no time was recorded.
        peak_memory_bytes: the maximum over seeds, of the GPU if there is one; None if it was not recorded.
    """

    data: str
    condition: str
    labels: Labels
    variant: str
    protocol: str
    measured: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    val_map: float | None
    test_map: float
    test_deviation: float | None
    region_map: float | None
    global_map: float | None
    per_label: Mapping[str, float]
    headline: Mapping[str, float]
    headline_tuned: Mapping[str, float]
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    train_images: float | None
    trained_parameters: int
    seconds: float
    epoch_seconds: float | None
    peak_memory_bytes: int | None


def group_rows(group: Group, variants: Mapping[str, BySeed], reference: str, resamples: int = RESAMPLES) -> list[Row]:
    """The rows of one group: every variant over all labels and, if some were unseen, over seen and unseen ones.

    Raises:
        UserError: two runs were evaluated on different images or under different protocols, or one is damaged.
    """
    protocol, keys = _common_ground([folder for by_seed in variants.values() for folder in by_seed.values()])
    # Labels that any variant did not see are scored for all, so that an upper bound that saw them is comparable.
    unseen: dict[int, set[str]] = {}
    for by_seed in variants.values():
        for seed, folder in by_seed.items():
            unseen.setdefault(seed, set()).update(folder.record().data.unseen)
    parts: list[Labels] = ["all", "seen", "unseen"] if any(unseen.values()) else ["all"]
    rows = []
    for part in parts:
        wanted = {
            seed: [key for key in keys if part == "all" or (key in hidden) == (part == "unseen")]
            for seed, hidden in unseen.items()
        }
        of_reference = variants.get(reference, {})
        drawn = {
            seed: resampled_test_map(folder, keys, wanted[seed], resamples) for seed, folder in of_reference.items()
        }
        for variant, by_seed in variants.items():
            values = _by_seed(by_seed, wanted, "test", "both")
            if not values:
                continue
            difference = interval = None
            if variant != reference:
                compared = _by_seed(of_reference, wanted, "test", "both")
                common = [seed for seed in values if seed in compared]
                if common:
                    difference = fmean(values[seed] - compared[seed] for seed in common)
                    ours = [resampled_test_map(by_seed[seed], keys, wanted[seed], resamples) for seed in common]
                    interval = difference_interval(np.stack(ours), np.stack([drawn[seed] for seed in common]))
            rows.append(
                Row(
                    data=group.data,
                    condition=group.condition,
                    labels=part,
                    variant=variant,
                    protocol=protocol,
                    measured=next(iter(by_seed.values())).result().measured,
                    seeds=tuple(values),
                    values=tuple(values.values()),
                    val_map=_mean(_by_seed(by_seed, wanted, "val", "both")),
                    test_map=fmean(values.values()),
                    test_deviation=stdev(values.values()) if len(values) > 1 else None,
                    region_map=_mean(_by_seed(by_seed, wanted, "test", "region")),
                    global_map=_mean(_by_seed(by_seed, wanted, "test", "global")),
                    per_label=_per_label(by_seed, wanted),
                    headline=_headline(by_seed, tuned=False) if part == "all" else {},
                    headline_tuned=_headline(by_seed, tuned=True) if part == "all" else {},
                    difference=difference,
                    difference_low=interval[0] if interval else None,
                    difference_high=interval[1] if interval else None,
                    **_costs(list(by_seed.values())),
                )
            )
    return rows


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """The table as Parquet, for DuckDB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        **dict.fromkeys(("data", "condition", "labels", "variant", "protocol", "measured"), pa.string()),
        **dict.fromkeys(("trained_parameters", "peak_memory_bytes"), pa.int64()),
        "seeds": pa.list_(pa.int64()),
        "values": pa.list_(pa.float64()),
        **dict.fromkeys(_MAPS, pa.map_(pa.string(), pa.float64())),
    }
    schema = pa.schema([(field.name, kinds.get(field.name, pa.float64())) for field in fields(Row)])
    with replacing(path) as beside:
        pq.write_table(pa.Table.from_pylist([_plain(row) for row in rows], schema=schema), beside)


def _plain(row: Row) -> dict[str, Any]:
    # Arrow takes maps as lists of pairs.
    maps = {name: list(getattr(row, name).items()) for name in _MAPS}
    return {**asdict(row), **maps}


def _common_ground(folders: Sequence[RunFolder]) -> tuple[str, list[str]]:
    """The protocol (name and hash), labels, test images and targets that all runs share."""
    first, *others = folders
    about = first.record()
    ids, (_, targets) = first.test_ids(), read_predictions(first)
    for other in others:
        theirs = other.record()
        if theirs.protocol != about.protocol or theirs.labels != about.labels:
            raise UserError(
                f"{other.path}: has another protocol or other labels than {first.path}; do not compare them"
            )
        if other.test_ids() != ids or not np.array_equal(read_predictions(other)[1], targets):
            raise UserError(
                f"{other.path}: was evaluated on other test images than {first.path}; has the data changed?"
            )
    return f"{about.protocol.name} ({about.protocol.hash})", list(about.labels)


def _by_seed(by_seed: BySeed, wanted: Mapping[int, Sequence[str]], split: str, branch: str) -> dict[int, float]:
    """mAP in percent over the wanted labels; seeds without that branch or without a positive are left out."""
    found = {}
    for seed, folder in by_seed.items():
        metrics = getattr(folder.result(), split).get(branch)
        per_class = {} if metrics is None else metrics.per_class
        if values := [per_class[key] for key in wanted[seed] if key in per_class]:
            found[seed] = 100 * fmean(values)
    return found


def _mean(by_seed: Mapping[int, float]) -> float | None:
    return fmean(by_seed.values()) if by_seed else None


def _per_label(by_seed: BySeed, wanted: Mapping[int, Sequence[str]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for seed, folder in by_seed.items():
        per_class = folder.result().test["both"].per_class
        for key in wanted[seed]:
            if key in per_class:
                found.setdefault(key, []).append(100 * per_class[key])
    return {key: fmean(values) for key, values in found.items()}


def _headline(by_seed: BySeed, tuned: bool) -> dict[str, float]:
    """The headline figures other than mAP, in percent, mean over seeds; at its threshold, or tuned on val."""
    figures: dict[str, list[float]] = {}
    for folder in by_seed.values():
        about = folder.record()
        protocol = about.protocol.rules()
        names = [name for name in protocol.headline if name != "mAP"]
        if names:
            metrics = _tuned(folder, about.labels, protocol) if tuned else folder.result().test["both"]
            for name in names:
                figures.setdefault(name, []).append(100 * metrics.figure(name))
    return {name: fmean(values) for name, values in figures.items()}


def _tuned(folder: RunFolder, keys: Sequence[str], protocol: Protocol) -> Metrics:
    probabilities, targets = read_predictions(folder)
    return evaluate_scores(probabilities["both"], targets, keys, protocol, folder.tuned_for(keys))


def _costs(folders: Sequence[RunFolder]) -> dict[str, Any]:
    results = [folder.result() for folder in folders]
    trained = [folder.epochs()[-1].epoch for folder in folders]
    epochs = [
        result.train_seconds / count
        for result, count in zip(results, trained, strict=True)
        if count and result.train_seconds is not None
    ]
    peaks = [result.peak_gpu_memory_bytes or result.peak_memory_bytes for result in results]
    images = [folder.record().data.images.get("train") for folder in folders]
    return {
        "train_images": fmean(count for count in images if count) if all(images) else None,
        "trained_parameters": results[0].trained_parameters,
        "seconds": median(result.seconds for result in results),
        "epoch_seconds": median(epochs) if epochs else None,
        "peak_memory_bytes": max((peak for peak in peaks if peak), default=None),
    }
