"""Imports of large libraries."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_import() -> Iterator[None]:
    """Around the import of a large library: no garbage is collected meanwhile.

    The objects of an import, millions of them, are there to stay, and the collector would look through them again and
    again: a tenth of the time of importing open_clip, a quarter of that of vLLM.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
