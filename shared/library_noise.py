"""Keeps from the terminal what libraries print while they load, unless something fails."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from rich.console import Console

from sspa.shared.cache import cache_folder
from sspa.shared.files import replacing
from sspa.shared.terminal import messages, say

_STREAMS = (1, 2)


@contextmanager
def quiet(doing: str, name: str) -> Iterator[None]:
    """Within the block, what this process and its children write to standard output and error is kept aside.

    Also what C++ writes, which no Python stream sees. If the block raises, it is in NAME.log in the cache, which a
    message names. A terminal shows meanwhile what is being done.

    Args:
        doing: such as "starting vLLM".
        name: of the file.
    """
    with tempfile.TemporaryFile() as kept:
        saved = _redirected(kept)
        try:
            with _shown(doing, saved[2]):
                yield
        except Exception:
            _restore(saved)
            _keep(kept, name)
            raise
        finally:
            _restore(saved)


def _redirected(kept: BinaryIO) -> dict[int, int]:
    """Send both streams to the file; returns copies of what they were, by number."""
    _flush()
    saved = {stream: os.dup(stream) for stream in _STREAMS}
    for stream in _STREAMS:
        os.dup2(kept.fileno(), stream)
    return saved


def _restore(saved: dict[int, int]) -> None:
    _flush()
    for stream, copy in saved.items():
        os.dup2(copy, stream)
        os.close(copy)
    saved.clear()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


@contextmanager
def _shown(doing: str, stream: int) -> Iterator[None]:
    """A spinner on the terminal that standard error was."""
    if not messages.is_terminal:
        yield
        return
    with os.fdopen(os.dup(stream), "w") as terminal, Console(file=terminal, force_terminal=True).status(doing):
        yield


def _keep(kept: BinaryIO, name: str) -> None:
    kept.seek(0)
    if content := kept.read():
        path = cache_folder("logs") / f"{name}.log"
        with replacing(path) as beside:
            beside.write_bytes(content)
        say(f"what was printed meanwhile: {path}")
