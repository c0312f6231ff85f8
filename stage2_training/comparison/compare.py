"""Makes the missing runs of a comparison, and compares its variants."""

import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.comparison.definition import Comparison
from sspa.stage2_training.comparison.plan import PlannedRun, finished_runs, plan_runs, state_of
from sspa.stage2_training.comparison.rows import Row, group_rows
from sspa.stage2_training.model.heads import reads_regions
from sspa.stage2_training.training.run import run


def compare(
    comparison: Comparison,
    out: Path,
    config_files: Sequence[Path],
    settings: Sequence[str],
    given: Mapping[str, Any],
    device: torch.device,
) -> tuple[list[Row], list[str]]:
    """Make every run that is not yet in `out`, and the table from all finished runs.

    Returns:
        The rows, and which runs failed. A failure does not stop the others, unless it is the first run: then all
        would fail the same way.

    Raises:
        UserError: an invalid setting; a folder in `out` that contains something else; the first run failed.
    """
    planned = plan_runs(comparison, out, config_files, settings, given)
    states = [state_of(wanted) for wanted in planned]
    if kept := states.count("finished"):
        say(f"{kept} of {len(planned)} runs exist already")
    failed: list[str] = []
    left = [(wanted, state) for wanted, state in zip(planned, states, strict=True) if state != "finished"]
    # Heads that read regions first: what is kept for them serves the others too, but not the other way round.
    left.sort(key=lambda run: not reads_regions(run[0].config.model))
    for number, (wanted, state) in enumerate(left, start=kept + 1):
        say(f"run {number} of {len(planned)}: {wanted.title}")
        try:
            _complete(wanted, unfinished=state == "unfinished", device=device)
        except UserError as error:
            if number == 1:
                raise
            say(f"{wanted.title}: failed: {error}")
            failed.append(wanted.title)
    rows = [
        row
        for group, variants in finished_runs(planned).items()
        for row in group_rows(group, variants, comparison.reference)
    ]
    return rows, failed


def _complete(wanted: PlannedRun, unfinished: bool, device: torch.device) -> None:
    _forget_peak_memory(device)
    run(wanted.config, wanted.path, device, resume=unfinished)


def _forget_peak_memory(device: torch.device) -> None:
    """Reset the peak, since one process makes all runs (on Linux, and on a GPU)."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    gc.collect()
    high_water = Path("/proc/self/clear_refs")
    if os.access(high_water, os.W_OK):
        high_water.write_text("5")
