"""Makes several runs of a comparison at a time, each in a process, and on a GPU, of its own."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import torch

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.comparison.plan import PlannedRun, State
from sspa.stage2_training.compute.cores import share_cores
from sspa.stage2_training.compute.device import prepare_device
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.training.run import run


def jobs_of(wanted: int | None, device: torch.device) -> int:
    """How many runs are made at a time: by default as many as there are GPUs, one on a CPU or on a numbered GPU."""
    if wanted is not None:
        return wanted
    return torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1


def make_at_once(
    left: Sequence[tuple[PlannedRun, State]], jobs: int, device: torch.device, logs: Path
) -> Iterator[tuple[PlannedRun, str | None]]:
    """Make the runs, and yield each when it has ended, with the user's mistake that stopped it, if one did.

    The first run is made alone: it computes the features that the others share, and what stops it would stop all.

    Args:
        jobs: how many runs are made at a time.
        device: of all runs; a GPU without a number stands for all GPUs in turn.
        logs: the folder for what each run says, NAME.log.
    """
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for place in range(jobs):
        places.put(place)
    logs.mkdir(parents=True, exist_ok=True)
    say(f"{jobs} runs at a time; what each says is in {logs}")
    pool = ProcessPoolExecutor(jobs, context, _begin, (places, jobs, str(device)))
    try:
        for some in (left[:1], left[1:]):
            made = {pool.submit(_make, *_asked(wanted, state, logs)): wanted for wanted, state in some}
            for future in as_completed(made):
                yield made[future], future.result()
    finally:
        # After Ctrl-C, which the runs have received as well, those that have not begun are not begun.
        pool.shutdown(cancel_futures=True)


def _asked(wanted: PlannedRun, state: State, logs: Path) -> tuple[RunConfig, Path, bool, Path]:
    return wanted.config, wanted.path, state == "unfinished", logs / f"{wanted.path.name}.log"


# Of this process, set when it starts.
_device = torch.device("cpu")


def _begin(places: Any, jobs: int, device: str) -> None:
    global _device
    share_cores(jobs)
    place = 0
    with suppress(Empty):  # a process that takes the place of one that died
        place = places.get(timeout=1)
    _device = torch.device(device)
    if _device.type == "cuda" and _device.index is None:
        _device = torch.device("cuda", place % torch.cuda.device_count())
    prepare_device(_device)
    if _device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))


def _make(config: RunConfig, path: Path, resume: bool, log: Path) -> str | None:
    with log.open("a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        try:
            run(config, path, _device, resume=resume)
        except UserError as error:
            say(f"error: {error}")
            return str(error)
    return None
