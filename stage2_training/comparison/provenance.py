"""Where a comparison's figures come from: what its runs have in common, and what each variant sets."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sspa.stage2_training.comparison.plan import PlannedRun
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.config.trees import flat
from sspa.stage2_training.runs.run_folder import RunFolder

# Named among the facts, or different in every run.
_TOLD_ELSEWHERE = ("data.name", "data.root", "knowledge", "backbone.name", "training.seed")
Facts = list[tuple[str, str]]


def facts_of(runs: Sequence[PlannedRun]) -> Facts:
    """Protocol, data, knowledge, backbone, machine and time of the finished runs; different values are all listed."""
    folders = [RunFolder(run.path) for run in runs]
    about, results = [folder.record() for folder in folders], [folder.result() for folder in folders]
    environments = [record.environment for record in about]
    times = sorted(result.finished for result in results if result.finished)
    return [
        ("protocol", _distinct(f"{record.protocol.name} ({record.protocol.hash})" for record in about)),
        ("data", _distinct(_data_of(folder) for folder in folders)),
        ("knowledge", _distinct(f"{record.knowledge.file}, hash {record.knowledge.hash[:16]}" for record in about)),
        ("backbone", _distinct(f"{result.backbone.name}: {result.backbone.description}" for result in results)),
        ("seeds", _distinct(str(run.seed) for run in runs)),
        (
            "computed",
            f"on {_distinct(found.gpu or found.cpu or 'a CPU' for found in environments)}; "
            f"torch {_distinct(found.libraries.get('torch', 'unknown') for found in environments)}; "
            f"source {_distinct(found.git or 'not under git' for found in environments)}",
        ),
        *([("finished", " to ".join(dict.fromkeys((times[0], times[-1]))))] if times else []),
    ]


def shared_settings(runs: Sequence[PlannedRun]) -> Facts:
    """The settings of all runs that are not the program's defaults, be they of a preset, a file or the command line."""
    defaults = flat(RunConfig(knowledge=Path()).model_dump(mode="json"))
    first, *others = (flat(run.config.model_dump(mode="json")) for run in runs)
    return [
        (key, _written(value))
        for key, value in first.items()
        if key not in _TOLD_ELSEWHERE
        and value != defaults.get(key, ...)
        and all(other.get(key, ...) == value for other in others)
    ]


def overrides(of: Mapping[str, Mapping[str, Any]]) -> Facts:
    """What each variant or condition sets itself, in one line each."""
    return [(name, ", ".join(f"{key}={_written(value)}" for key, value in own.items())) for name, own in of.items()]


def _data_of(folder: RunFolder) -> str:
    data = folder.record().data
    counts = ", ".join(f"{count:,} {split}" for split, count in data.images.items())
    return f"{data.name}{f' ({counts} images)' if counts else ''}, hash {data.hash[:16]}"


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
