"""`sspa-train predict --out FOLDER/`: who of several processes tags what."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.terminal import messages, output
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.prediction.folder_job.job import begin, left_of, report, tag_here
from sspa.stage2_training.prediction.folder_job.units import find_units


def tag_into_folder(
    load: Callable[[], Tagger],
    images: Sequence[str],
    out: str,
    per_file: int,
    batch_size: int,
    shard: str | None,
    ray_actors: int,
) -> None:
    """Tag this process's part of the images into the folder `out`.

    The parts are those of an array job (`shard`, "3/64"), each cut again for the processes of torchrun.

    Args:
        load: the model; picklable, since each of Ray's actors calls it.

    Raises:
        UserError: an argument matches nothing, or is contradicted by another; or see `tag_in_actors` and `tag_unit`.
    """
    number, count = _parse(shard)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ray_actors and (shard is not None or world > 1):
        raise UserError("--ray hands out the work itself: leave out --shard, and start one process")
    if rank:
        messages.quiet = output.quiet = True
    units = find_units(images, per_file)
    tagger = load()
    folder = begin(tagger, units, out)
    left = left_of(units, folder, (number - 1) * world + rank, count * world)
    if not left:
        return  # which was said
    if ray_actors:
        from sspa.stage2_training.prediction.folder_job.ray_actors import tag_in_actors

        # Actors start elsewhere: relative paths are those of this process.
        loads = partial(_load_in, str(Path.cwd()), load)
        report(folder, len(left), tag_in_actors(loads, ray_actors, left, folder, batch_size))
    else:
        report(folder, len(left), tag_here(tagger, left, folder, batch_size))


def device_of_process(device: str) -> str:
    """Under torchrun, each process's own GPU of its machine; else `device`."""
    if device not in ("auto", "cuda") or int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1:
        return device
    import torch

    return f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else device


def _load_in(folder: str, load: Callable[[], Tagger]) -> Tagger:
    os.chdir(folder)
    return load()


def _parse(shard: str | None) -> tuple[int, int]:
    if shard is None:
        return 1, 1
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard {shard}: write K/N with K from 1 to N, as in 3/64")
    return int(number), int(count)
