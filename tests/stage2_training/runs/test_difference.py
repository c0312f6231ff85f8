"""The differences of two runs are found, part by part."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sspa.stage2_training.config.resolving import resolve_config
from sspa.stage2_training.runs.difference import difference
from sspa.stage2_training.runs.run_folder import RunFolder

from ..comparison.recorded_runs import KEYS, write_knowledge_file, write_run

TARGETS = (np.random.default_rng(0).random((20, len(KEYS))) < 0.4).astype(np.int8)
SCORES = np.random.default_rng(1).random(TARGETS.shape).astype(np.float32)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., RunFolder]:
    """A finished run under `name` with settings of its own."""

    def made(
        name: str, scores: np.ndarray[Any, Any] = SCORES, description: str = "A {}.", **settings: Any
    ) -> RunFolder:
        knowledge = write_knowledge_file(tmp_path / f"{name}.parquet", description)
        values = {"knowledge": knowledge, **{key.replace("__", "."): value for key, value in settings.items()}}
        folder = write_run(tmp_path / name, resolve_config(values=values), scores, TARGETS)
        (folder.path / "knowledge.parquet").write_bytes(knowledge.read_bytes())
        return folder

    return made


def test_equal_runs_differ_in_nothing(make: Callable[..., RunFolder]) -> None:
    found = difference(make("one"), make("two"))
    assert found.empty
    assert found.probabilities is not None
    assert found.probabilities["both"].largest == 0


def test_each_part_is_found(make: Callable[..., RunFolder]) -> None:
    scores = SCORES.copy()
    scores[7, 2] = 1 - scores[7, 2]
    one, two = make("one"), make("two", scores, "The {}.", training__lr=0.5)
    record = json.loads((two.path / "run.json").read_text())
    record["environment"]["cpu"] = "another"
    record["data"]["hash"] = "e" * 32
    two.write_json("run.json", record)

    found = difference(one, two)

    assert found.configuration == {"training.lr": (5e-4, 0.5)}
    assert found.environment == {"cpu": ("one", "another")}
    assert found.knowledge["cat"] == (("A cat.",), ("The cat.",))
    assert found.data == {"hash": ("d" * 32, "e" * 32)}
    assert set(found.figures) == {"test mAP, both"}
    assert found.probabilities is not None
    apart = found.probabilities["both"]
    assert apart.largest == pytest.approx(abs(float(SCORES[7, 2]) - float(scores[7, 2])))
    assert (apart.image, apart.label, apart.median) == ("t7", KEYS[2], 0.0)
    assert apart.mean == pytest.approx(apart.largest / TARGETS.size)
    assert not found.empty


def test_probabilities_of_other_images_are_not_compared(make: Callable[..., RunFolder]) -> None:
    one, two = make("one"), make("two")
    two.write_json("test_ids.json", [f"u{number}" for number in range(20)])
    assert difference(one, two).probabilities is None
