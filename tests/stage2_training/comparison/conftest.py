"""A comparison that trains nothing."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sspa.stage2_training.comparison import compare as compare_module
from sspa.stage2_training.comparison.compare import compare
from sspa.stage2_training.comparison.definition import Comparison
from sspa.stage2_training.comparison.plan import planned_work
from sspa.stage2_training.comparison.rows import group_rows
from sspa.stage2_training.config.run_config import RunConfig

from .recorded_runs import TARGETS, scores, write_knowledge_file, write_run


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a comparison keeps is no business of the user who runs the tests."""
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for training: writes a run of a quality set by its head, and logs the folder's name; "+" if resumed."""
    names: list[str] = []

    def train(config: RunConfig, path: Path, device: torch.device, resume: bool) -> None:
        help_of = 0.1 if config.model.head == "linear" else 0.4
        write_run(path, config, scores(config.training.seed, help_of), TARGETS)
        names.append(path.name + "+" * resume)

    monkeypatch.setattr(compare_module, "run", train)
    monkeypatch.setattr(compare_module, "_forget_peak_memory", lambda device: None)
    return names


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`compare` into one folder, with knowledge about KEYS, and as few resamples as an interval can have."""
    monkeypatch.setattr(compare_module, "group_rows", partial(group_rows, resamples=60))
    knowledge = write_knowledge_file(tmp_path / "k.parquet")

    def of(comparison: Comparison, *settings: str, **given: Any) -> Any:
        given = {"knowledge": knowledge, **given}
        work = planned_work(comparison, tmp_path / "out", [], settings, given)
        return compare(work, comparison.reference, tmp_path / "logs", torch.device("cpu"))

    return of
