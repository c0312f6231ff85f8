"""The cost of one training step of the full model on a backbone: seconds, memory, parameters."""

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import torch

from sspa.shared.errors import UserError
from sspa.shared.label_sets import read_label_set
from sspa.stage2_training.bench.untrained import untrained_sspa
from sspa.stage2_training.compute.device import keep_freed_memory
from sspa.stage2_training.config.run_config import TrainingOptions
from sspa.stage2_training.model.losses import AslOptions, total_loss
from sspa.stage2_training.training.optimization import make_optimization
from sspa.stage2_training.training.steps import forward_context


@dataclass(frozen=True)
class StepRequest:
    """One row to measure; `size` is (height, width), `tower` as in `set_trainable`, `batch` in images."""

    spec: str
    size: tuple[int, int]
    tower: str
    batch: int
    threads: int
    labels: str


@dataclass(frozen=True)
class StepCost:
    """Seconds to create the model, and of one step after warm-up; peak memory of the process in bytes."""

    load_seconds: float
    step_seconds: float
    peak_bytes: int
    regions: int
    trained: int


def measure_apart(request: StepRequest) -> StepCost:
    """`measure_step` in its own process, so that the peak memory is that of this row alone.

    Raises:
        UserError: the row cannot be measured; the message is that process's last line.
    """
    command = [sys.executable, "-m", "sspa.stage2_training.bench.step_cost", json.dumps(asdict(request))]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"ended with code {finished.returncode}"]
        raise UserError(f"{request.spec} at {request.size[0]}x{request.size[1]}: {lines[-1]}")
    return StepCost(**json.loads(finished.stdout.splitlines()[-1]))


def measure_step(request: StepRequest) -> StepCost:
    """Two optimizer steps of SSPA on random images with random weights; the second is timed."""
    torch.set_num_threads(request.threads)
    keep_freed_memory()
    started = time.perf_counter()
    images = torch.randn(request.batch, 3, *request.size)
    recognizer = untrained_sspa(request.spec, request.tower, request.labels, images)
    targets = torch.randint(0, 2, (request.batch, len(read_label_set(request.labels).labels)))
    optimization = make_optimization(recognizer, TrainingOptions(epochs=1), steps_per_epoch=2)
    loaded = time.perf_counter()

    recognizer.train()
    for _ in range(2):
        step_started = time.perf_counter()
        with forward_context(images.device, "float32", request.tower):
            prediction = recognizer(images)
        optimization.step(total_loss(dict(prediction.logits), targets, AslOptions()))
    finished = time.perf_counter()
    trained = sum(value.numel() for value in recognizer.parameters() if value.requires_grad)
    regions = recognizer.backbone.grid[0] * recognizer.backbone.grid[1]
    # Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return StepCost(loaded - started, finished - step_started, peak, regions, trained)


def spec_and_size(row: str) -> tuple[str, tuple[int, int]]:
    """Parse "NAME@HEIGHTxWIDTH".

    Raises:
        UserError: it has another form.
    """
    spec, at, size = row.rpartition("@")
    height, _, width = size.partition("x")
    if not at or not spec or not all(side.isdecimal() for side in size.split("x")) or size.count("x") > 1:
        raise UserError(f"{row}: write NAME@SIZE or NAME@HEIGHTxWIDTH, such as open_clip:ViT-B-16@448")
    return spec, (int(height), int(width or height))


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(asdict(measure_step(StepRequest(**{**asked, "size": tuple(asked["size"])})))))
