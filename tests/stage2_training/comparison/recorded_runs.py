"""Run folders with everything that a comparison reads, written without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sspa.shared.knowledge import read_knowledge
from sspa.shared.knowledge_format import write_knowledge
from sspa.stage2_training.comparison.definition import Comparison
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.evaluation.metrics import evaluate_scores
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import write_predictions

KEYS = ("cat", "dog", "ox", "yak")
TARGETS = (np.random.default_rng(0).random((40, len(KEYS))) < 0.4).astype(np.int8)


def write_knowledge_file(path: Path, description: str = "A {} has four legs.") -> Path:
    """A knowledge file about KEYS."""
    write_knowledge(path, [{"label": key, "description": description.format(key)} for key in KEYS])
    return path


def write_run(
    path: Path,
    config: RunConfig,
    probabilities: np.ndarray[Any, Any],
    targets: np.ndarray[Any, Any],
    protocol: str = "custom",
    unseen: Sequence[str] = (),
    **result: Any,
) -> RunFolder:
    """A finished run with these test scores (N, 4); val is the first half of test."""
    folder = RunFolder(path)
    rules = get_protocol(protocol)
    knowledge = read_knowledge(config.knowledge).for_labels(KEYS)
    folder.write_json("config.json", config.model_dump(mode="json"))
    folder.write_json(
        "run.json",
        {
            "format": 1,
            "labels": list(KEYS),
            "data": {"name": "recorded", "hash": "d" * 32, "note": "", "unseen": list(unseen)},
            "protocol": {"name": rules.name, "hash": rules.hash},
            "knowledge": {"file": str(config.knowledge), "hash": knowledge.content_hash},
            "seed": config.training.seed,
            "device": "cpu",
            "environment": {"python": "3", "libraries": {"torch": "2"}, "git": None, "cpu": "one"},
        },
    )
    ids = tuple(f"t{number}" for number in range(len(targets)))
    split = Split("test", ids, tuple(map(Path, ids)), targets)
    half = len(targets) // 2
    test, val = (
        {"both": evaluate_scores(probabilities[:end], targets[:end], KEYS, rules).to_dict()}
        for end in (len(targets), half)
    )
    folder.append("metrics.jsonl", {"epoch": 0, "val": val})
    folder.append("metrics.jsonl", {"epoch": 1, "loss": 2.5, "learning_rate": 1e-3, "val": val})
    write_predictions(folder, {"both": probabilities.astype(np.float32)}, split)
    about = {
        "best_epoch": 1,
        "trained_parameters": 1_500_000,
        "seconds": 20.0,
        "train_seconds": 3.0,
        "untrained_test": test,
        "backbone": {"name": "recorded", "description": "none"},
    }
    folder.write_json("thresholds.json", {"description": "0.3 for all", "values": dict.fromkeys(KEYS, 0.3)})
    folder.write_json("result.json", {**about, "test": test, "val": val, **result})
    return folder


def scores(seed: int, help_of: float = 0.0) -> np.ndarray:
    """Random probabilities, pulled towards the truth."""
    noise = np.random.default_rng(seed).random(TARGETS.shape)
    return np.clip((1 - help_of) * noise + help_of * TARGETS, 0, 1)


def two(**fields: Any) -> Comparison:
    variants = {"plain": {"model.head": "linear"}, "better": {}}
    return Comparison(**{"about": "two heads", "reference": "plain", "variants": variants, "seeds": (0, 1), **fields})
