"""What is measured of a training step, and the process of its own that measures it."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.backbone_names import check_name


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


def spec_and_size(row: str) -> tuple[str, tuple[int, int]]:
    """Parse "NAME@HEIGHTxWIDTH".

    Raises:
        UserError: it has another form, or there is no such backbone.
    """
    spec, at, size = row.rpartition("@")
    height, _, width = size.partition("x")
    if not at or not spec or not all(side.isdecimal() for side in size.split("x")) or size.count("x") > 1:
        raise UserError(f"{row}: write NAME@SIZE or NAME@HEIGHTxWIDTH, such as open_clip:ViT-B-16@448")
    check_name(spec, None)
    return spec, (int(height), int(width or height))
