"""What both stages need of a Ray cluster: to join it, to hold a request to its size, and to read its errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from sspa.shared.errors import UserError
from sspa.shared.terminal import say


@contextmanager
def join_cluster(purpose: str) -> Iterator[dict[str, float]]:
    """Join the cluster of $RAY_ADDRESS, or start a local one for the block; yields its resources by kind.

    Raises:
        UserError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"--ray needs Ray ({error}); install the extra `ray`") from error
    started = not ray.is_initialized()
    if started:
        say(f"starting Ray for {purpose}")
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield dict(ray.cluster_resources())
    finally:
        if started:
            ray.shutdown()


def check_resources(cluster: dict[str, float], workers: int, gpus: int) -> int | None:
    """GPUs for each of `workers` actors that want `gpus` each; None if the cluster has none at all.

    Raises:
        UserError: it is too small, so that Ray would wait forever.
    """
    kind, each = ("GPU", gpus) if cluster.get("GPU") else ("CPU", 1)
    needed = workers * each
    if (there := int(cluster.get(kind, 0))) < needed:
        raise UserError(f"--ray {workers}: the cluster has {there} {kind}s, and {workers} actors need {needed}")
    return each if kind == "GPU" else None


def last_line(error: BaseException) -> str:
    """What went wrong in an actor, without the two tracebacks that Ray prepends."""
    return str(error).strip().splitlines()[-1].strip()[:300]
