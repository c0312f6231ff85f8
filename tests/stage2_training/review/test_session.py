"""A review in progress, with a model that is no model."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.reviewed.entries import Answer
from sspa.stage2_training.data.reviewed.review_file import ReviewFile, open_review
from sspa.stage2_training.review.session import Session, judge
from sspa.stage2_training.review.strategy import AtRandom

LABELS = LabelSet("mine", (Label("cat", "cat"), Label("dog", "dog")))
PATHS = [f"{number}.jpg" for number in range(20)]


class Memory:
    """Predicts what it was last taught, and says when it was."""

    def __init__(self, unreadable: tuple[int, ...] = ()) -> None:
        self.unreadable = unreadable
        self.may_read = threading.Event()
        self.may_read.set()
        self.taught = np.full((len(PATHS), 2), 0.3, dtype=np.float32)
        self.lessons: list[list[int]] = []
        self.others: list[list[int]] = []
        self.learned = threading.Event()
        self.fault: Exception | None = None

    def read_photos(self, told: Any) -> None:
        for number in range(1, 5):
            told(number, 4)
            while not self.may_read.wait(0.01):
                told(number, 4)

    def learn(self, rows: NDArray[np.int64], targets: NDArray[np.int8], go_on: Any) -> bool:
        self.lessons.append(rows.tolist())
        try:
            if self.fault is not None:
                raise self.fault
            self.taught = self.taught.copy()
            self.taught[rows] = np.where(targets == 1, 0.9, 0.1)
            return bool(go_on())
        finally:
            self.learned.set()

    def teach_itself(
        self, rows: NDArray[np.int64], targets: NDArray[np.int8], others: NDArray[np.int64], go_on: Any
    ) -> bool:
        self.others.append(others.tolist())
        return bool(go_on())

    def probabilities(self) -> NDArray[np.float32]:
        return self.taught


@contextmanager
def session_of(path: Path, model: Memory, **options: Any) -> Iterator[tuple[Session, ReviewFile]]:
    with open_review(path, LABELS) as file:
        session = Session(model, file, LABELS.labels, PATHS, AtRandom(), lambda: AtRandom(1), **options)
        if model.may_read.is_set():
            session.read_photos()
        yield session, file


def whole(row: int, cat: int = 1, dog: int = 0, **others: Any) -> Answer:
    return Answer(path=PATHS[row], marks={"cat": cat, "dog": dog}, **others)


def test_every_photo_is_asked_about_once(tmp_path: Path) -> None:
    with session_of(tmp_path / "a.jsonl", Memory()) as (session, _):
        seen: list[int] = []
        while asked := session.next(3):
            session.add(whole(asked[0].row))
            seen.append(asked[0].row)
    assert sorted(seen) == list(range(20))


def test_what_the_page_holds_is_not_given_again(tmp_path: Path) -> None:
    with session_of(tmp_path / "a.jsonl", Memory(unreadable=(7,))) as (session, _):
        first = [one.row for one in session.next(15)]
        others = [one.row for one in session.next(15, held=first)]
    assert len(first) == 15
    assert sorted(first + others) == [row for row in range(20) if row != 7]


def test_a_review_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    with session_of(tmp_path / "a.jsonl", Memory()) as (session, _):
        for one in session.next(8):
            session.add(whole(one.row))
    with session_of(tmp_path / "a.jsonl", Memory()) as (session, _):
        assert session.progress()["answered"] == 8
        assert len(session.next(20)) == 12


def test_answers_taken_back_are_asked_about_again(tmp_path: Path) -> None:
    with session_of(tmp_path / "a.jsonl", Memory()) as (session, _):
        given = [whole(row) for row in range(20)]
        for answer in given:
            session.add(answer)
        assert session.next(1) == []
        last = session.last()
        assert last is not None
        assert last.id == given[-1].id
        session.undo([given[3].id, given[5].id, "nothing"], "me")
        assert sorted(one.row for one in session.next(5)) == [3, 5]


def test_a_photo_asked_about_for_one_label_is_not_done(tmp_path: Path) -> None:
    with session_of(tmp_path / "a.jsonl", Memory()) as (session, _):
        grid = session.for_label(1, 12)
        assert len(grid) == 12
        for one in grid:
            session.add(Answer(path=PATHS[one.row], marks={"dog": 1}, chosen="grid"))
        assert len(session.for_label(1, 12)) == 8
        assert len(session.for_label(0, 30)) == 20
        assert session.progress()["answered"] == 0
        assert session.progress()["present"] == [0, 12]
        assert session.marks_of(grid[0].row) == {"dog": 1}


def test_it_learns_in_the_background_and_suggests_accordingly(tmp_path: Path) -> None:
    model = Memory()
    with session_of(tmp_path / "a.jsonl", model, every=10) as (session, _), session.learning():
        for row in range(4):
            session.add(whole(row))
        assert not model.learned.wait(0.2)
        session.add(whole(4, cat=0, dog=1))
        assert model.learned.wait(60)
        _until(lambda: session.progress()["version"] == 3)
        assert model.lessons == [[0, 1, 2, 3, 4]]
        assert model.others == [list(range(5, 20))]
        assert session.progress()["learned_from"] == 5
        (first,) = session.for_label(0, 1)
        assert first.probabilities is not None
        assert first.probabilities[0] == pytest.approx(0.3)
        session.undo([next(iter(session._file.answers.standing))], "me")
        assert session.next(1)[0].version == 3


def test_it_asks_while_the_model_reads_and_learns_from_that(tmp_path: Path) -> None:
    model = Memory(unreadable=(19,))
    model.may_read.clear()
    with session_of(tmp_path / "a.jsonl", model) as (session, _), session.learning():
        _until(lambda: session.progress()["photos_read"] == 5)
        for one in session.next(6):
            assert one.probabilities is None
            assert one.chosen == "random"
            session.add(whole(one.row))
        grid = session.for_label(0, 30)
        assert len(grid) == 14
        assert all(one.probabilities is None for one in grid)
        assert not model.learned.is_set()
        model.may_read.set()
        assert model.learned.wait(60)
        assert len(model.lessons[0]) == 6
        _until(lambda: session.progress()["photos_read"] is None)
        later = session.next(20)
        assert 19 not in [one.row for one in later]
        assert all(one.probabilities is not None and one.version > 0 for one in later)


def test_closing_ends_the_reading(tmp_path: Path) -> None:
    model = Memory()
    model.may_read.clear()
    with session_of(tmp_path / "a.jsonl", model) as (session, _):
        with session.learning():
            _until(lambda: session.progress()["photos_read"] > 0)
        assert session.progress()["trouble"] == ""
    assert not any(thread.name == "learning" for thread in threading.enumerate())


def test_photos_that_cannot_be_read_in_leave_a_review_without_suggestions(tmp_path: Path) -> None:
    class Full(Memory):
        def read_photos(self, told: Any) -> None:
            raise UserError("no space is left")

    model = Full()
    model.may_read.clear()
    with session_of(tmp_path / "a.jsonl", model) as (session, _), session.learning():
        _until(lambda: "no space" in session.progress()["trouble"])
        session.add(whole(session.next(1)[0].row))
        assert session.progress()["answered"] == 1


@pytest.mark.parametrize(("fault", "said"), [(UserError("diverged"), "diverged"), (ValueError("x"), "internal fault")])
def test_a_failed_lesson_costs_no_answer_and_is_said(tmp_path: Path, fault: Exception, said: str) -> None:
    model = Memory()
    model.fault = fault
    with session_of(tmp_path / "a.jsonl", model) as (session, _), session.learning():
        for row in range(5):
            session.add(whole(row))
        _until(lambda: said in session.progress()["trouble"])
        assert session.progress()["version"] == 1
        session.add(whole(6))
        assert session.progress()["answered"] == 6


def test_answers_about_other_photos_or_labels_are_refused(tmp_path: Path) -> None:
    with session_of(tmp_path / "a.jsonl", Memory()) as (session, _):
        with pytest.raises(UserError, match="no photo of this review"):
            session.add(Answer(path="other.jpg", marks={"cat": 1}))
        with pytest.raises(UserError, match="'fox' is no label"):
            session.add(Answer(path=PATHS[0], marks={"fox": 1}))
        assert session.progress()["answers"] == 0


def test_suggestions_are_judged_by_photos_drawn_at_random() -> None:
    answers = [
        whole(0, 1, 0, suggested={"cat": 0.9, "dog": 0.8}, chosen="random"),
        whole(1, 0, 1, suggested={"cat": 0.1, "dog": 0.2}, chosen="random"),
        whole(2, -1, 1, suggested={"cat": 0.9, "dog": 0.9}, chosen="random"),
        whole(3, 1, 1, suggested={"cat": 0.9, "dog": 0.9}, chosen="useful"),
    ]
    found = judge(answers)
    assert (found.photos, found.suggested, found.right, found.missed) == (3, 3, 2, 1)


def _until(holds: Any) -> None:
    for _ in range(6000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("did not happen within a minute")
