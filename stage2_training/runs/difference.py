"""The differences between two runs: where to look when their results differ.

Legend: N test images, C labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sspa.stage2_training.config.resolving import differing_keys
from sspa.stage2_training.config.trees import flat
from sspa.stage2_training.runs.records import RunRecord
from sspa.stage2_training.runs.run_folder import RunFolder

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class ProbabilityDifference:
    """How far the probabilities of one branch are apart, over the N x C cells of test.

    Attributes:
        largest, median, mean: of the absolute differences.
        image, label: the cell with the largest one; values: both probabilities there.
    """

    largest: float
    median: float
    mean: float
    image: str
    label: str
    values: tuple[float, float]


@dataclass(frozen=True)
class RunDifference:
    """Each part maps differing entries to their values in the two runs; it is empty if nothing differs.

    Attributes:
        configuration: by dotted key, for keys that can affect the result.
        environment: by dotted key of run.json's environment, with device and processes.
        knowledge: "hash" of the file, and the descriptions of each label whose descriptions differ.
        data: name, hash, protocol, labels, test images, and the splits that the weights were trained on.
        figures: test mAP of each branch, and the best epoch.
        probabilities: by branch, if both runs scored the same images and labels; else None, as for a refit, which
            scores none.
    """

    configuration: Mapping[str, Pair]
    environment: Mapping[str, Pair]
    knowledge: Mapping[str, Pair]
    data: Mapping[str, Pair]
    figures: Mapping[str, Pair]
    probabilities: Mapping[str, ProbabilityDifference] | None

    @property
    def empty(self) -> bool:
        """Whether the runs are equal in everything that is compared, with probabilities equal bit for bit."""
        parts = (self.configuration, self.environment, self.knowledge, self.data, self.figures)
        return not any(parts) and all(found.largest == 0 for found in (self.probabilities or {}).values())


def difference(one: RunFolder, other: RunFolder) -> RunDifference:
    """Compare two finished runs.

    Raises:
        UserError: one of them is unfinished or damaged.
    """
    records = one.record(), other.record()
    ids = one.test_ids(), other.test_ids()
    environments = [_environment(record) for record in records]
    data = [
        {
            **record.data.model_dump(include={"name", "hash"}),
            "protocol": f"{record.protocol.name} ({record.protocol.hash})",
            "labels": record.labels,
            "test images": len(test_ids),
            "trained on": record.refit.splits if record.refit else ("train",),
        }
        for record, test_ids in zip(records, ids, strict=True)
    ]
    same_cells = ids[0] == ids[1] and records[0].labels == records[1].labels
    scored = not any(record.refit for record in records)
    return RunDifference(
        configuration=_configuration(one, other),
        environment=_differing(*environments),
        knowledge=_knowledge(one, other),
        data=_differing(*data),
        figures=_differing(_figures(one), _figures(other)),
        probabilities=_probabilities(one, other) if same_cells and scored else None,
    )


def _environment(record: RunRecord) -> dict[str, Any]:
    """By dotted key; entries that a run did not record are left out."""
    whole = {**record.environment.model_dump(), "device": record.device, "processes": record.processes}
    return {key: value for key, value in flat(whole).items() if value not in (None, {})}


def _configuration(one: RunFolder, other: RunFolder) -> dict[str, Pair]:
    configs = one.config(), other.config()
    first, second = (flat(config.model_dump(mode="json")) for config in configs)
    return {key: (first.get(key), second.get(key)) for key in differing_keys(*configs)}


def _knowledge(one: RunFolder, other: RunFolder) -> dict[str, Pair]:
    first, second = one.knowledge(), other.knowledge()
    found: dict[str, Pair] = _differing({"hash": first.content_hash}, {"hash": second.content_hash})
    return found | _differing(dict(first.descriptions), dict(second.descriptions))


def _figures(run: RunFolder) -> dict[str, Any]:
    result = run.result()
    of_branches = {f"test mAP, {branch}": metrics.mAP for branch, metrics in result.test.items()}
    return {**of_branches, "best epoch": result.best_epoch}


def _probabilities(one: RunFolder, other: RunFolder) -> dict[str, ProbabilityDifference]:
    from sspa.stage2_training.runs.stored_tensors import read_predictions

    (first, _), (second, _) = read_predictions(one), read_predictions(other)
    ids, labels = one.test_ids(), one.record().labels
    found = {}
    for branch in first:
        if branch in second:
            apart = np.abs(first[branch].astype(np.float64) - second[branch])  # (N, C)
            image, label = np.unravel_index(int(apart.argmax()), apart.shape)
            values = float(first[branch][image, label]), float(second[branch][image, label])
            found[branch] = ProbabilityDifference(
                float(apart.max()), float(np.median(apart)), float(apart.mean()), ids[image], labels[label], values
            )
    return found


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Pair]:
    keys = dict.fromkeys((*one, *other))
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}
