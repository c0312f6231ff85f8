"""A review file that is being written: each answer is on the disk before anything else happens."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sspa.shared.errors import UserError
from sspa.shared.holding import held
from sspa.shared.label_sets import LabelSet
from sspa.shared.terminal import say
from sspa.stage2_training.data.reviewed.answers import Answers, read_up_to_damage
from sspa.stage2_training.data.reviewed.entries import Answer, Entry, Head, ReviewedLabel, Undo


class ReviewFile:
    """An open review file: `answers` is what stands in it, and `add` appends.

    It is not thread-safe.
    """

    def __init__(self, path: Path, file: IO[bytes], answers: Answers) -> None:
        self.path, self.answers = path, answers
        self._file = file

    def add(self, entry: Entry) -> None:
        """Append an entry and wait until it is on the disk; one that is already there is not written again.

        Raises:
            UserError: it cannot be written. The file is as it was, and so are the answers.
        """
        if isinstance(entry, Answer | Undo) and entry.id in self.answers.ids:
            return
        line = entry.model_dump_json().encode() + b"\n"
        before = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(before)
            raise UserError(f"{self.path}: the answer cannot be kept ({error.strerror}); free some room") from error
        self.answers.add(entry)


@contextmanager
def open_review(path: Path, labels: LabelSet) -> Iterator[ReviewFile]:
    """The review file at `path`, made or gone on with, held by this process until the block ends.

    Labels are compared by key: others may have come or gone, and a text may have changed.

    Raises:
        UserError: another process writes it, it is no review file, it is damaged, none of its labels is among
            `labels`, or it cannot be written.
    """
    if path.suffix != ".jsonl":
        raise UserError(f"--out {path}: answers are appended as JSON lines; take {path.with_suffix('.jsonl')}")
    with held(path, "close that page first"):
        answers, whole, size = read_up_to_damage(path) if path.exists() else (Answers(), 0, 0)
        _check_labels(answers, labels, path)
        try:
            file = path.open("r+b" if path.exists() else "x+b", buffering=0)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
        with file:
            if whole < size:
                say(f"{path}: its last line was cut off and is removed; {len(answers.standing):,} answers stand")
                file.truncate(whole)
            opened = ReviewFile(path, file, answers)
            if answers.labels != labels.labels or answers.domain != labels.domain:
                asked = (ReviewedLabel(key=one.key, text=one.text, hint=one.hint) for one in labels.labels)
                opened.add(Head(domain=labels.domain, labels=tuple(asked)))
            yield opened


def _check_labels(answers: Answers, labels: LabelSet, path: Path) -> None:
    if not answers.standing:
        return
    before, asked = {label.key for label in answers.labels}, set(labels.keys)
    if not before & asked:
        raise UserError(
            f"{path}: is a review of other labels ({', '.join(sorted(before)[:5])}); choose another --out file"
        )
    if gone := sorted(before - asked):
        say(f"{path}: no longer asked about, the answers are kept: {', '.join(gone)}")
    if new := sorted(asked - before):
        say(f"{path}: not asked about before, unknown in earlier answers: {', '.join(new)}")
