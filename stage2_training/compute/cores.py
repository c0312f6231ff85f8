"""How many processor cores there are for a process."""

import os


def cores() -> int:
    """Those that it may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cores() -> int:
    """Its share of these, beside its machine's other processes (torchrun); at least one."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
