"""Messages, progress bars and exit codes of both commands."""

import errno
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from sspa.shared.errors import UserError
from sspa.shared.liveness import liveness

# Wide enough for every table, so that nothing is cut off in a pipe or a file.
_PIPED_WIDTH = 160

# Results go to standard output, messages to standard error, so that `--json` and tables can be piped.
output = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
messages = Console(stderr=True, highlight=False, soft_wrap=True)

# What the machine refuses; everything else that the system reports is this program's fault.
_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
_LINE_EVERY_S = 10.0
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, instead: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """The text with `instead` in place of what a terminal obeys: controls (not line breaks, tabs), text direction.

    Also in place of what cannot be encoded: the bytes of a file's name that is not UTF-8.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\ufffd[2Jb'
    """
    # Nearly every text is printable as it is, and Python knows that at once.
    return text if text.isprintable() else _OBEYED.sub(instead, text)


def say(message: str) -> None:
    """Print one line to standard error; markup in `message` is shown literally."""
    liveness.note(message)
    messages.print(escape(printable(message)))


def run_command(app: Any) -> None:
    """Run a typer app: a UserError, a full disk or a missing permission becomes one line and exit code 2; any other
    exception keeps its traceback."""
    try:
        app()
    except UserError as error:
        _end_with(str(error))
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        _end_with(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
    except KeyboardInterrupt:
        messages.print("interrupted")
        sys.exit(130)


def _end_with(error: str) -> NoReturn:
    messages.print(f"[bold red]error:[/] {escape(printable(' '.join(error.split())))}")
    sys.exit(2)


class Progress:
    """Counts finished items and prints a line now and then; created by `progress`.

    The rate is that since the first items were done: what comes before them, such as an engine's start, does not come
    again.
    """

    def __init__(self, description: str, total: int, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self._started = self._last_line = time.monotonic()
        self._first: tuple[float, int] | None = None  # when they were done, and how many

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more items as done; `note` is shown after the figures."""
        self._count(count)
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S and self.done < self.total:
            self._last_line = now
            say(self._line(now, note))

    def _count(self, count: int) -> None:
        self.done += count
        if self._first is None:
            self._first = time.monotonic(), self.done
        liveness.note(f"{self.description}: {self.done}/{self.total} {self.unit}")

    def finish(self) -> None:
        """Print the last line, with the rate of the whole."""
        rate = self.done / max(time.monotonic() - self._started, 1e-9)
        say(f"{self._counted()}, {rate:.1f} {self.unit}/s, done")

    def _rate(self, now: float) -> float | None:
        if self._first is None or self.done == self._first[1]:
            return None
        return (self.done - self._first[1]) / max(now - self._first[0], 1e-9)

    def _counted(self) -> str:
        return f"{self.description}: {self.done}/{self.total} {self.unit}"

    def _line(self, now: float, note: str) -> str:
        rate = self._rate(now)
        pace = f", {rate:.1f} {self.unit}/s, {(self.total - self.done) / rate:.0f} s left" if rate else ""
        return f"{self._counted()}{pace}{'; ' + note if note else ''}"


class _BarProgress(Progress):
    """The same on a terminal, as a bar with rate and time left."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        super().__init__(description, total, unit)
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} {task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=messages,
        )
        self._task = self._bar.add_task(escape(description), total=total, rate="", note="")
        self._bar.start()

    def advance(self, count: int = 1, note: str = "") -> None:
        self._count(count)
        rate = self._rate(time.monotonic())
        self._bar.update(self._task, advance=count, rate=f"{rate:.1f} {self.unit}/s" if rate else "", note=escape(note))

    def finish(self) -> None:
        self._bar.stop()


@contextmanager
def progress(description: str, total: int, unit: str) -> Iterator[Progress]:
    """Show the progress of long work: a bar on a terminal, a plain line every ten seconds elsewhere.

    Example:
        with progress("asking", total=20, unit="labels") as bar:
            bar.advance()
    """
    shown = (_BarProgress if messages.is_terminal else Progress)(description, total, unit)
    try:
        yield shown
    finally:
        shown.finish()


@contextmanager
def loading() -> Iterator[None]:
    """Show on a terminal that libraries are being loaded, which takes seconds; elsewhere nothing."""
    with messages.status("loading torch and the model's libraries") if messages.is_terminal else nullcontext():
        yield
