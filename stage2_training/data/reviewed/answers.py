"""The answers of a review, read from its file: JSON lines, one entry each, only ever appended to.

JSON lines rather than Parquet, which cannot be appended to: each answer is on the disk before the next photo is shown.
DuckDB reads the file as it is (`read_json('mine.review.jsonl')`).
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label
from sspa.shared.terminal import say
from sspa.stage2_training.data.reviewed.entries import FORMAT_VERSION, Answer, Entry, Head, Undo, entry_of

# About a million answers about forty labels.
_LARGEST = 2 << 30


@dataclass
class Answers:
    """The answers that stand, in their order.

    Attributes:
        labels: those that were asked about last.
        domain: of the labels.
        standing: the answers that were not taken back, by id.
        ids: of all entries, those that were taken back included.
    """

    labels: tuple[Label, ...] = ()
    domain: str = "natural"
    standing: dict[str, Answer] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Take an entry into account; one that is already there changes nothing."""
        if isinstance(entry, Head):
            self.labels, self.domain = entry.as_labels(), entry.domain
            return
        if entry.id in self.ids:
            return
        self.ids.add(entry.id)
        if isinstance(entry, Undo):
            self.standing.pop(entry.undo, None)
        else:
            self.standing[entry.id] = entry

    def marks(self) -> dict[str, dict[str, int]]:
        """What is known of each photo, by its path: marks by label key, the last answer about a label counts."""
        known: dict[str, dict[str, int]] = {}
        for answer in self.standing.values():
            known.setdefault(answer.path, {}).update(answer.marks)
        return known


def read_answers(path: Path) -> Answers:
    """The answers of a review file.

    A last line that was cut off by a kill or a full disk is left out, which a message says.

    Raises:
        UserError: there is no such file, it is no review file or of a newer version, or another line is damaged.
    """
    answers, whole, size = read_up_to_damage(path)
    if whole < size:
        say(f"{path}: its last line was cut off and is left out; {len(answers.standing):,} answers before it stand")
    return answers


def read_up_to_damage(path: Path) -> tuple[Answers, int, int]:
    """The answers, how many bytes hold them, and the size of the file; only its last line may be damaged.

    Raises:
        UserError: see `read_answers`.
    """
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise UserError(f"{path}: has {size:,} bytes; {_LARGEST:,} is the limit of a review file")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such review file; make one with: sspa-train review") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    answers, whole = Answers(), 0
    # Not splitlines, for which a stray carriage return ends a line too: what follows it would be taken for cut off.
    lines = [line for line in re.split(rb"(?<=\n)", content) if line]
    for number, line in enumerate(lines, start=1):
        try:
            entry = entry_of(json.loads(line)) if line.endswith(b"\n") else None
        except (ValueError, RecursionError) as error:
            if number == 1:
                raise _no_review(path) from error
            if number < len(lines):
                reason = str(error).splitlines()[0]
                raise UserError(f"{path}: line {number} is damaged ({reason}); remove or correct it") from error
            entry = None
        if entry is None:
            break
        if isinstance(entry, Head):
            _check_version(entry, path)
        elif number == 1:
            raise _no_review(path)
        answers.add(entry)
        whole += len(line)
    if content and not whole:
        raise _no_review(path)
    return answers, whole, len(content)


def _no_review(path: Path) -> UserError:
    return UserError(f"{path}: not a review file; sspa-train review writes them, as in mine.review.jsonl")


def _check_version(head: Head, path: Path) -> None:
    if head.sspa_review > FORMAT_VERSION:
        raise UserError(f"{path}: version {head.sspa_review} is newer than this sspa reads ({FORMAT_VERSION})")
