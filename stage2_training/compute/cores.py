"""How many processor cores there are for a process."""

import os
from pathlib import Path

# Linux's control groups: microseconds of processor time in so many of time, or "max".
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
# As torchrun sets it.
_PROCESSES = "LOCAL_WORLD_SIZE"


def cores() -> int:
    """Those that it may run on, at least one; where a container has a quota of their time, as many as that is worth."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def own_cores() -> int:
    """Its share of these, beside the other processes on its machine (torchrun's, or see below); at least one."""
    return max(1, cores() // int(os.environ.get(_PROCESSES, "1")))


def share_cores(processes: int) -> None:
    """Say that this is one of so many processes that work on this machine at the same time."""
    os.environ[_PROCESSES] = str(processes)
