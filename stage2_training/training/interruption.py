"""SIGTERM and Ctrl-C: they end a run immediately if nothing is lost, else after the current step and a checkpoint."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class StopRequestedError(Exception):
    """Ends training between two steps, after a signal; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interruption:
    """The pending signal, if any; created by `interruptions`.

    Outside `deferred`, a signal ends the run immediately. Inside, it is recorded in `requested`, and training raises
    `StopRequestedError` where it can save. A second Ctrl-C always ends the run immediately, except under torchrun,
    which forwards the first one to processes that have already received it.
    """

    def __init__(self, second_ends: bool) -> None:
        self.requested = 0
        self._second_ends = second_ends
        self._deferring = False
        self._pid = os.getpid()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block, signals are only recorded."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def stop_if(self, number: int) -> None:
        """Raise `StopRequestedError` if there has been a signal."""
        if number:
            raise StopRequestedError(number)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A worker process that inherited this handler: Ctrl-C reaches it as well, but the main process decides.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        again = self._second_ends and self.requested == number == signal.SIGINT
        self.requested = self.requested or number
        if again or not self._deferring:
            leave(number)


def leave(number: int) -> NoReturn:
    """Exit as usual after a signal: code 130 for Ctrl-C, 143 for SIGTERM."""
    if number == signal.SIGTERM:
        raise SystemExit(128 + number)
    raise KeyboardInterrupt


@contextmanager
def interruptions(second_ends: bool = True) -> Iterator[Interruption]:
    """Handle SIGTERM and SIGINT within the block; the previous handlers are restored afterwards."""
    interruption = Interruption(second_ends)
    if threading.current_thread() is not threading.main_thread():
        yield interruption  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, interruption._received) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
