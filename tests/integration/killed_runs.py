"""Runs on the squares in processes of their own, and what they leave that no interruption may change."""

import json
from pathlib import Path
from typing import Any

from sspa.stage2_training.config.resolving import resolve_config

from .driver import Driver

TRAINING = "sspa.stage2_training.training"
STEP = f"{TRAINING}.optimization:Optimization.update"

STEPS, EPOCHS = 12, 3
# What is random in a step, so that a lost random state shows; checkpoints within the epochs.
SETTINGS = (
    "data.workers=0",
    "training.batch_size=8",
    "training.lr=0.01",
    "training.ema_decay=0.5",
    f"training.epochs={EPOCHS}",
    "training.checkpoint_every=5",
    "training.branch_shares=fitted",
    "model.knowledge_branch=true",
    "model.region_dropout=0.2",
    "model.qsm.dropout=0.2",
)


class Runs:
    """Trains on the squares, through a driver and with a cache of its own."""

    def __init__(self, driver: Driver, squares: Path, cache: Path) -> None:
        self._driver, self.squares, self._cache = driver, squares, cache

    def ask(self, **request: Any) -> list[int]:
        """Exit codes by rank; see `Driver.ask`."""
        return self._driver.ask(self._cache, **request)

    def config(self, *settings: str) -> dict[str, Any]:
        """The configuration of a run, with these settings on top."""
        values = {
            "knowledge": self.squares / "knowledge.parquet",
            "data.name": str(self.squares / "squares.parquet"),
            "data.root": self.squares / "pictures",
            "backbone.name": f"local-dir:{self.squares / 'backbone'}",
        }
        return resolve_config(settings=[*SETTINGS, *settings], base=values).model_dump(mode="json")

    def run(self, out: Path, *settings: str, **options: Any) -> list[int]:
        """Exit codes by rank; the messages are in the log file of the same name."""
        return self.ask(out=str(out), log=f"{out}.log", config=self.config(*settings), **options)


def left(out: Path) -> dict[str, Any]:
    """All outputs of a run that must not depend on interruptions."""
    result = json.loads((out / "result.json").read_text())
    for cost in ("seconds", "train_seconds", "peak_memory_bytes"):
        assert result.pop(cost) > 0
    assert result.pop("finished").endswith("UTC")
    # Weights, averaged weights, the optimizer's moments and the random state after the last step.
    newest = max(out.glob("checkpoints/epoch-*"))
    state = json.loads((newest / "state.json").read_text())
    for machine in ("hash", "tensors_hash"):
        state.pop(machine)
    state["state"].pop("seconds")
    files = ("metrics.jsonl", "weights.safetensors", "predictions.safetensors", "thresholds.json", "config.json")
    return {
        "result": result,
        "state": (newest.name, state),
        "tensors": (newest / "tensors.safetensors").read_bytes(),
        **{name: (out / name).read_bytes() for name in files},
    }


def said(out: Path) -> str:
    """The messages of the runs in that folder."""
    return Path(f"{out}.log").read_text()
