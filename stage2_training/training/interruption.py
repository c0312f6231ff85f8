"""SIGTERM and Ctrl-C: at once where nothing would be lost, after the step and a checkpoint where training goes on."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class StopRequestedError(Exception):
    """A signal that was noted ends training here, between two steps; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interruption:
    """What has been asked for; made by `interruptions`.

    Outside of `deferred` a signal ends the run at the line that it meets. Inside, it is noted in `requested`, and
    training raises `StopRequestedError` where it can save. A second Ctrl-C ends the run at once, wherever it comes.
    """

    def __init__(self) -> None:
        self.requested = 0
        self._deferring = False
        self._pid = os.getpid()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block signals are noted and do nothing else."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def stop_if(self, number: int) -> None:
        """Raise `StopRequestedError` if there was a signal."""
        if number:
            raise StopRequestedError(number)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A reading process that inherited this: Ctrl-C reaches it as well, and the run itself decides.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        again = self.requested == number == signal.SIGINT
        self.requested = self.requested or number
        if again or not self._deferring:
            leave(number)


def leave(number: int) -> NoReturn:
    """End as the signal asks: exit code 130 for Ctrl-C, 143 for SIGTERM."""
    if number == signal.SIGTERM:
        raise SystemExit(128 + number)
    raise KeyboardInterrupt


@contextmanager
def interruptions() -> Iterator[Interruption]:
    """Take SIGTERM and SIGINT over for the block; the handlers of before are put back at its end."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, interruption._received) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
