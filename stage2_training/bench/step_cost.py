"""The cost of one training step of the full model on a backbone: seconds, memory, parameters."""

import json
import resource
import sys
import time
from dataclasses import asdict

import torch

from sspa.shared.label_sets import read_label_set
from sspa.stage2_training.bench.step_request import StepCost, StepRequest
from sspa.stage2_training.bench.untrained import untrained_sspa
from sspa.stage2_training.compute.device import keep_freed_memory
from sspa.stage2_training.config.run_config import TrainingOptions
from sspa.stage2_training.model.loss_options import AslOptions
from sspa.stage2_training.model.losses import total_loss
from sspa.stage2_training.training.optimization import make_optimization
from sspa.stage2_training.training.steps import forward_context


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


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(asdict(measure_step(StepRequest(**{**asked, "size": tuple(asked["size"])})))))
