"""A tensor that is computed once, then read from the cache."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.compute.tensor_files import UNREADABLE, read_tensors, write_tensors


def cached_tensor(path: Path, compute: Callable[[], Tensor], fits: Callable[[Tensor], bool]) -> Tensor:
    """What `path` holds, or what `compute` gives, which is then written there.

    A damaged entry is computed again, and where none can be written the result is not kept; messages say so.

    Args:
        path: in the cache, named by a hash over all that the tensor is computed from.
        fits: whether a tensor that was read can be the one.
    """
    if path.is_file():
        try:
            kept = read_tensors(path)["value"]
            if fits(kept):
                return kept
        except (*UNREADABLE, KeyError, UserError):
            pass
        say(f"{path}: is damaged; computing it again")
    value = compute()
    try:
        write_tensors({"value": value}, path)
    except UserError as error:
        say(f"{error}; going on without keeping it")
    return value
