"""A review in progress: what is asked next, the answers, and a model that learns from them meanwhile.

Legend: N photos of the pool, C labels.
"""

import hashlib
import json
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label
from sspa.shared.terminal import say
from sspa.stage2_training.data.reviewed.entries import Answer, Chosen, Undo
from sspa.stage2_training.data.reviewed.review_file import ReviewFile
from sspa.stage2_training.review.strategy import Strategy

# In `_marks`: nobody was asked; -1 means that somebody did not know.
_NEVER = -2
# From as many answers on something can be learned.
_FEWEST = 5
# Photos that are chosen at a time.
_AHEAD = 12
# The latest photos drawn at random, by which the suggestions are judged.
_JUDGED = 100


class Model(Protocol):
    """What a session needs of a `Learner`."""

    @property
    def unreadable(self) -> Collection[int]: ...

    def read_photos(self, told: Callable[[int, int], None]) -> None: ...

    def learn(self, rows: NDArray[np.int64], targets: NDArray[np.int8], go_on: Any) -> bool: ...

    def teach_itself(
        self, rows: NDArray[np.int64], targets: NDArray[np.int8], others: NDArray[np.int64], go_on: Any
    ) -> bool: ...

    def probabilities(self) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Asked:
    """A photo that is asked about.

    Attributes:
        row: of the photo.
        chosen: why.
        probabilities: (C,) what is suggested; None while the model has not read the photos.
        version: of the model.
    """

    row: int
    chosen: Chosen
    probabilities: NDArray[np.float32] | None
    version: int


class _ClosedError(Exception):
    """The session was closed while the model read the photos."""


@dataclass(frozen=True)
class Judged:
    """The suggestions on the latest photos that were drawn at random, as they were before the answers."""

    photos: int
    suggested: int
    right: int
    missed: int


class Session:
    """The state of a review. Its methods may be called from any thread.

    It can ask before the model has read the photos, which takes minutes for thousands: then nothing is suggested.

    `identity` is a hash of the photos and labels, whose numbers a page may only use as long as it is the same.

    Args:
        model: predicts, and learns, after it has read the photos.
        file: where the answers are kept.
        labels: C.
        paths: N photos, relative to their folder.
        meanwhile: chooses what to ask while the model reads.
        strategy: makes the strategy that chooses from then on.
        every: the model learns again after so many more answers, or a tenth more if that is more.
        given: marks to be checked (N, C), which are shown instead of the model's suggestions; None for none.
    """

    def __init__(
        self,
        model: Model,
        file: ReviewFile,
        labels: Sequence[Label],
        paths: Sequence[str],
        meanwhile: Strategy,
        strategy: Callable[[], Strategy],
        every: int = 10,
        given: NDArray[np.int8] | None = None,
    ) -> None:
        self.labels, self.paths, self.given = tuple(labels), list(paths), given
        self._model, self._file, self._every = model, file, every
        self._strategy, self._make_strategy = meanwhile, strategy
        keys = [label.key for label in self.labels]
        self.identity = hashlib.sha256(json.dumps([self.paths, keys]).encode()).hexdigest()[:16]
        self._row_of = {path: row for row, path in enumerate(self.paths)}
        self._column_of = {label.key: column for column, label in enumerate(self.labels)}
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._queue: list[tuple[int, Chosen]] = []
        self._version, self._learned_from, self._learning, self._trouble = 0, 0, False, ""
        self._probabilities: NDArray[np.float32] | None = None
        self._photos_read = 0
        self._unreadable = np.zeros(len(self.paths), dtype=bool)
        self._read_answers()

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Within the block, the model reads the photos, if it has not, and learns whenever enough answers have come in.

        Both in a thread of its own.
        """
        thread = threading.Thread(target=self._read_and_learn, name="learning", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            thread.join()

    def read_photos(self) -> None:
        """Have the model read the photos, and suggest from now on.

        Raises:
            UserError: it cannot.
        """

        def told(done: int, of: int) -> None:
            with self._changed:
                if self._closed:
                    raise _ClosedError
                self._photos_read = len(self.paths) * done // of

        self._model.read_photos(told)
        strategy, probabilities = self._make_strategy(), self._model.probabilities()
        with self._changed:
            self._strategy = strategy
            self._unreadable[list(self._model.unreadable)] = True
            self._suggest(probabilities)

    def next(self, count: int, held: Collection[int] = ()) -> list[Asked]:
        """The photos to ask about next, the most useful first; fewer where fewer are left.

        Args:
            count: how many.
            held: rows that the page has already and that are not answered yet.
        """
        with self._changed:
            taken = set(held)
            if sum(row not in taken for row, _ in self._queue) < count:
                self._choose(max(count + len(taken), _AHEAD))
            chosen = [(row, why) for row, why in self._queue if row not in taken][:count]
            return [self._asked(row, why) for row, why in chosen]

    def for_label(self, column: int, count: int) -> list[Asked]:
        """Photos of which nothing is known about one label, those that probably have it first."""
        with self._changed:
            if self._probabilities is None:
                order = np.random.default_rng(0).permutation(len(self.paths))
            else:
                order = np.argsort(-self._probabilities[:, column], kind="stable")
            rows = [row for row in order if self._marks[row, column] == _NEVER and not self._unreadable[row]]
            return [self._asked(int(row), "grid") for row in rows[:count]]

    def add(self, answer: Answer) -> None:
        """Keep an answer; the same one again changes nothing.

        Raises:
            UserError: it is about no photo or label of this review, or cannot be kept.
        """
        with self._changed:
            if answer.path not in self._row_of:
                raise UserError(f"{answer.path}: is no photo of this review")
            if unknown := [key for key in answer.marks if key not in self._column_of]:
                raise UserError(f"{unknown[0]!r} is no label of this review")
            self._file.add(answer)
            self._take(answer)
            self._changed.notify_all()

    def last(self) -> Answer | None:
        """The latest answer that stands."""
        with self._changed:
            return next(reversed(self._file.answers.standing.values()), None)

    def undo(self, answers: Sequence[str], by: str) -> None:
        """Take answers back, by their ids; those that do not stand are left alone.

        Raises:
            UserError: it cannot be kept.
        """
        with self._changed:
            for answer in answers:
                if answer in self._file.answers.standing:
                    self._file.add(Undo(undo=answer, by=by))
            self._read_answers()

    def asked_again(self, answer: Answer) -> Asked | None:
        """The photo of an answer that was taken back; None if it is none of this review's."""
        with self._changed:
            row = self._row_of.get(answer.path)
            return None if row is None else self._asked(row, answer.chosen)

    def marks_of(self, row: int) -> dict[str, int]:
        """What has been answered about a photo, by label key."""
        with self._changed:
            known = self._marks[row]
            return {label.key: int(mark) for label, mark in zip(self.labels, known, strict=True) if mark != _NEVER}

    def progress(self) -> dict[str, Any]:
        """How far the review is, for the page."""
        with self._changed:
            answers = self._file.answers.standing.values()
            judged = judge(answers)
            return {
                "identity": self.identity,
                "photos": len(self.paths),
                "answered": int(self._whole.sum()),
                "answers": len(answers),
                "seconds": round(sum(answer.seconds for answer in answers), 1),
                "photos_read": None if self._probabilities is not None else self._photos_read,
                "version": self._version,
                "learned_from": self._learned_from,
                "learning": self._learning,
                "trouble": self._trouble,
                "judged": vars(judged),
                "present": (self._marks == 1).sum(axis=0).tolist(),
                "asked": (self._marks != _NEVER).sum(axis=0).tolist(),
            }

    def _read_answers(self) -> None:
        shape = len(self.paths), len(self.labels)
        self._marks = np.full(shape, _NEVER, dtype=np.int8)
        self._whole = np.zeros(len(self.paths), dtype=bool)
        for answer in self._file.answers.standing.values():
            self._take(answer)
        self._queue = []

    def _take(self, answer: Answer) -> None:
        row = self._row_of.get(answer.path)
        if row is None:
            return
        for key, mark in answer.marks.items():
            if key in self._column_of:
                self._marks[row, self._column_of[key]] = mark
        # A label that is new since then is still to be asked about.
        self._whole[row] = bool((self._marks[row] != _NEVER).all())
        self._queue = [(other, why) for other, why in self._queue if other != row or not self._whole[row]]

    def _asked(self, row: int, chosen: Chosen) -> Asked:
        suggested = None if self._probabilities is None else self._probabilities[row]
        return Asked(row, chosen, suggested, self._version)

    def _choose(self, count: int) -> None:
        targets = np.where(self._marks == _NEVER, -1, self._marks).astype(np.int8)
        # A strategy for the time without suggestions looks at none.
        suggested = np.zeros(targets.shape, np.float32) if self._probabilities is None else self._probabilities
        self._queue = self._strategy.choose(suggested, targets, self._whole | self._unreadable, count)

    def _suggest(self, probabilities: NDArray[np.float32]) -> None:
        self._probabilities, self._queue = probabilities, []
        self._version += 1

    def _read_and_learn(self) -> None:
        if self._probabilities is None:
            trouble = _trouble_of(self.read_photos)
            with self._changed:
                self._trouble = trouble
                if self._probabilities is None:
                    return  # it asks on, without a model
        while self._wait_until_due():
            self._learn_once()

    def _wait_until_due(self) -> bool:
        """Whether it is time to learn; if not, the session is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._due())
            return not self._closed

    def _learn_once(self) -> None:
        """Learn from the answers, and then, until the next lesson is due, from what the model is sure of."""
        with self._changed:
            rows = np.flatnonzero((self._marks != _NEVER).any(axis=1))
            others = np.flatnonzero((self._marks == _NEVER).all(axis=1) & ~self._unreadable)
            targets = np.where(self._marks[rows] == _NEVER, -1, self._marks[rows]).astype(np.int8)
            answers, self._learning = len(self._file.answers.standing), True
        trouble = self._suggested_anew(lambda: self._model.learn(rows, targets, lambda: not self._closed))
        with self._changed:
            self._learning, self._learned_from, self._trouble = False, answers, trouble

        def nothing_to_do() -> bool:
            with self._changed:
                return not self._closed and not self._due()

        if not trouble:
            self._suggested_anew(lambda: self._model.teach_itself(rows, targets, others, nothing_to_do))

    def _suggested_anew(self, learn: Callable[[], bool]) -> str:
        """Learn, and suggest accordingly; returns what went wrong, after which the suggestions are as before."""

        def learn_and_suggest() -> None:
            if learn():
                probabilities = self._model.probabilities()
                with self._changed:
                    self._suggest(probabilities)

        return _trouble_of(learn_and_suggest)

    def _due(self) -> bool:
        answers = len(self._file.answers.standing)
        if not (self._marks == 1).any():
            return False
        # Learning takes the longer, the more there is to learn from.
        more = max(self._every, self._learned_from // 10) if self._learned_from else 0
        return answers >= max(_FEWEST, self._learned_from + more)


def _trouble_of(do: Callable[[], None]) -> str:
    """Do it; returns what went wrong. The answers matter more than suggestions: the page stays whatever happens."""
    try:
        do()
    except _ClosedError:
        pass  # nobody looks at the page any more
    except UserError as error:
        say(f"the suggestions stay as they are: {error}")
        return str(error)
    except Exception as error:
        traceback.print_exc()  # shown in full on the terminal
        return f"an internal fault, see the terminal ({error})"
    return ""


def judge(answers: Collection[Answer]) -> Judged:
    """How good the suggestions were on the latest photos drawn at random, which stand for all others."""
    drawn = [answer for answer in answers if answer.chosen == "random" and answer.suggested][-_JUDGED:]
    suggested = right = missed = 0
    for answer in drawn:
        for key, mark in answer.marks.items():
            shown = answer.suggested.get(key, 0.0) >= 0.5
            suggested += shown and mark >= 0
            right += shown and mark == 1
            missed += not shown and mark == 1
    return Judged(len(drawn), suggested, right, missed)
