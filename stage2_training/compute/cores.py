"""How many processor cores there are for a process."""

import os

# As torchrun sets it.
_PROCESSES = "LOCAL_WORLD_SIZE"


def cores() -> int:
    """Those that it may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cores() -> int:
    """Its share of these, beside the other processes on its machine (torchrun's, or see below); at least one."""
    return max(1, cores() // int(os.environ.get(_PROCESSES, "1")))


def share_cores(processes: int) -> None:
    """Say that this is one of so many processes that work on this machine at the same time."""
    os.environ[_PROCESSES] = str(processes)
