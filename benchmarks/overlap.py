"""How much of the time that gradients are sent lies within the backward pass: two processes, a trace of each.

Run: python benchmarks/overlap.py [FOLDER]

Two processes on this machine (gloo) train a transformer of random weights for a few steps. The times of the backward
pass and of each bucket's sum come from torch's profiler, whose traces are written to FOLDER, for chrome://tracing.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from sspa.stage2_training.compute.gradient_sum import summed_gradients
from sspa.stage2_training.compute.processes import Processes

WORLD, LAYERS, WIDTH, IMAGES, TOKENS, STEPS = 2, 8, 512, 16, 50, 4
BUCKET = 4 << 20


def work(rank: int, meeting: str, folder: Path | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 8, 4 * WIDTH, dropout=0, batch_first=True)
    tower = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    torch.manual_seed(rank)
    images = torch.randn(IMAGES // WORLD, TOKENS, WIDTH)
    with summed_gradients(tower.parameters(), Processes(rank, WORLD), BUCKET) as gradients:

        def step() -> None:
            tower.zero_grad()
            loss = tower(images).square().mean()
            with record_function("backward"), gradients.follow():
                loss.backward()
            gradients.wait()

        step()
        dist.barrier()
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            for _ in range(STEPS):
                step()
    if folder:
        trace.export_chrome_trace(str(folder / f"rank-{rank}.json"))
    dist.barrier()
    if not rank:
        tell(trace.events())
    dist.destroy_process_group()


def tell(events: Any) -> None:
    """The milliseconds of one step, on average."""
    spans = {
        name: [(event.time_range.start, event.time_range.end) for event in events if event.name == name]
        for name in ("backward", "gloo:all_reduce")
    }
    backward, sums = spans["backward"], spans["gloo:all_reduce"]
    within = sum(max(0, min(end, other) - max(start, begun)) for start, end in sums for begun, other in backward)
    before = sum(min(begun for begun, _ in sums if begun > start) - start for start, _ in backward)
    each = {
        "backward pass": _length(backward),
        "of it before the first bucket leaves": before,
        "buckets on their way": _length(sums),
        "of it during the backward pass": within,
    }
    print(f"{len(sums) // STEPS} buckets a step; milliseconds a step, of one of two processes:")
    for name, microseconds in each.items():
        print(f"  {name} {microseconds / STEPS / 1000:.0f}")


def _length(spans: list[tuple[float, float]]) -> float:
    return sum(end - start for start, end in spans)


if __name__ == "__main__":
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if to:
        to.mkdir(parents=True, exist_ok=True)
    # Above its messages of lost GPUs.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with tempfile.TemporaryDirectory() as name:
        mp.start_processes(work, (f"{name}/meeting", to), nprocs=WORLD)
