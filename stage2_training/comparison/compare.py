"""Makes the missing runs of a comparison, and compares its variants."""

import gc
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.shared.time_left import TimeLeft
from sspa.stage2_training.comparison.at_once import make_at_once
from sspa.stage2_training.comparison.plan import PlannedRun, State, Work, finished_runs, folders_of
from sspa.stage2_training.comparison.rows import Row, group_rows
from sspa.stage2_training.model.heads import reads_regions
from sspa.stage2_training.training.run import run


def compare(work: Work, reference: str, logs: Path, device: torch.device, jobs: int = 1) -> tuple[list[Row], list[str]]:
    """Make every run that is left, `jobs` of them at a time, and the table from all finished runs.

    Args:
        reference: the variant that the others are compared with.
        logs: the folder for what runs say if several are made at a time.

    Returns:
        The rows, and which runs failed. A failure does not stop the others, unless it is the first run: then all
        would fail the same way.

    Raises:
        UserError: the first run failed.
    """
    planned, left = work.planned, list(work.left)
    # Heads that read regions first: what is kept for them serves the others too, but not the other way round.
    left.sort(key=lambda run: not reads_regions(run[0].config.model))
    made = make_at_once(left, jobs, device, logs) if jobs > 1 else _one_by_one(left, device, len(planned))
    failed, pace = list[str](), TimeLeft()
    kept = len(planned) - len(left)
    for done, (wanted, problem) in enumerate(made, start=1):
        if jobs > 1:
            ended = f"run {kept + done} of {len(planned)} has ended: {wanted.title}"
            say(f"{ended}{pace.words(done, len(left) - done)}")
        if problem is not None:
            if kept + done == 1:
                raise UserError(problem)
            say(f"{wanted.title}: failed: {problem}")
            failed.append(wanted.title)
    rows = [
        row
        for group, variants in folders_of(finished_runs(planned)).items()
        for row in group_rows(group, variants, reference)
    ]
    return rows, failed


def _one_by_one(
    left: Sequence[tuple[PlannedRun, State]], device: torch.device, total: int
) -> Iterator[tuple[PlannedRun, str | None]]:
    """Make the runs in this process; yields as `make_at_once` does."""
    pace = TimeLeft()
    for done, (wanted, state) in enumerate(left):
        say(f"run {total - len(left) + done + 1} of {total}: {wanted.title}{pace.words(done, len(left) - done)}")
        _forget_peak_memory(device)
        try:
            run(wanted.config, wanted.path, device, resume=state == "unfinished")
        except UserError as error:
            yield wanted, str(error)
        else:
            yield wanted, None


def _forget_peak_memory(device: torch.device) -> None:
    """Reset the peak, since one process makes all runs (on Linux, and on a GPU)."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    gc.collect()
    high_water = Path("/proc/self/clear_refs")
    if os.access(high_water, os.W_OK):
        high_water.write_text("5")
