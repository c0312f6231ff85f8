"""The journal: answers on disk as they arrive, so that a killed run loses none of them.

One line per answer: a checksum, a space, and the answer as JSON. Lines are only ever appended, so a kill can
truncate only the last one; it is discarded, and its request is asked again.
"""

import errno
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.stage1_knowledge.engines.contract import Answer

# Every line reaches the operating system at once (a kill loses nothing); fsync is called at most this often
# (a power failure loses no more than this).
SYNC_EVERY_S = 0.05
_COMPACT = json.JSONEncoder(separators=(",", ":"))


class Journal:
    """An open journal: its answers at the time of opening, by key, and a way to append."""

    def __init__(self, path: Path) -> None:
        """Open `path`, which need not exist.

        Raises:
            UserError: a line other than the last is damaged, or the file cannot be written.
        """
        self.path = path
        self.answers, whole = _read(path)
        self._synced_at = 0.0
        self._file: IO[bytes] | None = None
        if path.exists() and whole < path.stat().st_size:
            # What follows the last complete line was being written when the run was killed.
            with self._reported():
                os.truncate(path, whole)

    def add(self, key: str, answer: Answer) -> None:
        """Append one answer.

        Raises:
            UserError: the disk is full, or the file cannot be written. All earlier answers are kept.
        """
        with self._reported():
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
            line = _line(key, answer)
            if self._file.write(line) < len(line):
                # A partial write; as the last line it is discarded when the journal is next opened.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if time.monotonic() - self._synced_at > SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Wait until all lines are on disk.

        Raises:
            UserError: as in `add`.
        """
        if self._file is not None:
            with self._reported():
                os.fsync(self._file.fileno())
            self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and close; the file is kept."""
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None

    def forget(self, keys: set[str]) -> None:
        """Discard the answers with these keys and all that were added; remove the file if none is left."""
        self.close()
        left = {key: answer for key, answer in self.answers.items() if key not in keys}
        if left:
            with replacing(self.path) as beside:
                beside.write_bytes(b"".join(_line(key, answer) for key, answer in left.items()))
        else:
            with self._reported():
                self.path.unlink(missing_ok=True)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); the answers so far are kept, "
                "make room and run the same command again"
            ) from error


def read_journal(path: Path) -> dict[str, Answer]:
    """The answers of a journal, which is left unchanged."""
    return _read(path)[0]


def answer_to_dict(answer: Answer) -> dict[str, str | int]:
    """The content of an answer. The number of cached tokens is left out: it differs from run to run."""
    return {
        "text": answer.text,
        "finish": answer.finish,
        "prompt_tokens": answer.prompt_tokens,
        "output_tokens": answer.output_tokens,
    }


def answer_from_dict(values: Mapping[str, str | int]) -> Answer:
    """The inverse of `answer_to_dict`."""
    return Answer(
        text=str(values["text"]),
        finish=str(values["finish"]),
        prompt_tokens=int(values["prompt_tokens"]),
        output_tokens=int(values["output_tokens"]),
    )


def _line(key: str, answer: Answer) -> bytes:
    # ASCII, so that no character of an answer can act as a line break.
    content = _COMPACT.encode({"key": key, **answer_to_dict(answer)}).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _read(path: Path) -> tuple[dict[str, Answer], int]:
    """The answers of a journal, and the length in bytes of its complete lines."""
    answers: dict[str, Answer] = {}
    whole = 0
    if not path.exists():
        return answers, whole
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            checksum, _, content = line[:-1].partition(b" ")
            if checksum != b"%08x" % zlib.crc32(content):
                raise UserError(
                    f"{path}, line {number}: damaged; remove that line to have its label asked again, "
                    "the other answers are kept"
                )
            try:
                values = json.loads(content)
                answers[values["key"]] = answer_from_dict(values)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number}: was not written by this version of sspa; finish with the version that "
                    "wrote it, or remove the file to have its labels asked again"
                ) from error
            whole += len(line)
    return answers, whole
