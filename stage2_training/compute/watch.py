"""Finds the process that hangs while the others wait for it.

A process that dies is torchrun's business. One that is alive and does nothing (a disk that no longer answers, a GPU
that does not return) would let the others wait for as long as torch lets them. So each process tells the others,
through torch's store and from a thread, what it does; one that neither does anything nor waits is named, and the run
ends.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

from sspa.shared.errors import UserError
from sspa.shared.liveness import Liveness, liveness
from sspa.shared.terminal import messages, say

if TYPE_CHECKING:
    from torch.distributed import Store

Answer = TypeVar("Answer")

_VARIABLE, _DEFAULT_MINUTES = "SSPA_PATIENCE_MINUTES", 30.0
_LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True)
class Report:
    """What a process says of itself.

    `reports` counts its reports, `count` what it has done; `doing` is the last of that.
    """

    host: str
    reports: int
    count: int
    doing: str
    waiting: bool
    ended: bool


def patience_s() -> float:
    """For how long a process may do nothing, in seconds; the environment's SSPA_PATIENCE_MINUTES, or 30 minutes.

    Raises:
        UserError: the variable is not a positive number.
    """
    text = os.environ.get(_VARIABLE, str(_DEFAULT_MINUTES))
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise UserError(f"{_VARIABLE}={text}: give a number of minutes above 0")
    return 60 * minutes


class Watch:
    """This process's eye on the others, and its own reports to them.

    Args:
        store: torch's store, on a connection of its own.
    """

    def __init__(self, store: "Store", rank: int, world: int, patience: float, own: Liveness = liveness) -> None:
        self._store, self._rank, self._world, self._patience, self._own = store, rank, world, patience, own
        self._waiting = self._told = 0
        self._last: dict[int, Report] = {}
        # When each process last reported, and last did something, in this process's time.
        self._reported: dict[int, float] = {}
        self._moved: dict[int, float] = {}

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the block, this process waits for others."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            self._own.count += 1

    def tell(self, ended: bool = False) -> None:
        """Tell the others what this process does, or that it has ended."""
        self._told += 1
        own = self._own
        report = Report(socket.gethostname(), self._told, own.count, own.doing, bool(self._waiting), ended)
        self._store.set(str(self._rank), json.dumps(asdict(report)))

    def look(self, now: float) -> str | None:
        """What hangs, in words, if something has for too long.

        Args:
            now: this process's time, in seconds.
        """
        for rank in range(self._world):
            if self._store.check([str(rank)]):
                self._note(rank, Report(**json.loads(self._store.get(str(rank)))), now)
        running = [rank for rank, report in self._last.items() if not report.ended]
        silent = [rank for rank in running if now - self._reported[rank] > self._patience]
        still = [rank for rank in running if now - self._moved[rank] > self._patience]
        hanging = [rank for rank in still if rank in silent or not self._last[rank].waiting]
        if hanging:
            return "; ".join(self._described(rank) for rank in hanging)
        if len(still) == self._world:
            return f"all {self._world} processes wait for each other; {self._described(0)}"
        return None

    def _note(self, rank: int, report: Report, now: float) -> None:
        before = self._last.get(rank)
        if before is None or report.reports != before.reports:
            self._reported[rank] = now
        if before is None or (report.count, report.waiting) != (before.count, before.waiting):
            self._moved[rank] = now
        self._last[rank] = report

    def _described(self, rank: int) -> str:
        report, minutes = self._last[rank], self._patience / 60
        return f"process {rank} on {report.host} has done nothing for {minutes:g} minutes; its last: {report.doing}"


@contextmanager
def watched(watch: Watch, patience: float) -> Iterator[None]:
    """Within the block, a thread tells and looks, and ends this process if another hangs."""
    # Before it can hang: the others do not wait for a process that they have never heard of.
    _answered(watch.tell, patience)
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(watch, patience, over), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(watch: Watch, patience: float, over: threading.Event) -> None:
    """Look about ten times in `patience`, until it is over or the store is gone."""
    try:
        while not over.wait(min(_LONGEST_PAUSE_S, patience / 10)):
            _answered(watch.tell, patience)
            if (found := _answered(lambda: watch.look(time.monotonic()), patience)) is not None:
                _end(found)
        _answered(lambda: watch.tell(ended=True), patience)
    except RuntimeError:
        return  # The store is gone with the process that held it; what waits for that process fails by itself.


def _answered(ask: Callable[[], Answer], patience: float) -> Answer:
    """What `ask` gets from the store; ends this process if the store is silent, which torch would wait for."""
    answers: list[Answer] = []
    errors: list[RuntimeError] = []

    def work() -> None:
        try:
            answers.append(ask())
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="watch's question", daemon=True)
    thread.start()
    thread.join(patience)
    if thread.is_alive():
        _end("the process that holds torch's store, torchrun or process 0, does not answer")
    if errors:
        raise errors[0]
    return answers[0]


def _end(found: str) -> NoReturn:
    # The main thread waits within torch, where no exception reaches it.
    messages.quiet = False
    say(f"error: {found}. Continue with --resume; {_VARIABLE} sets how long to wait")
    messages.file.flush()
    os._exit(1)
