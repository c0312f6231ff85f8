"""Manifests made of reviews, and corrected by them."""

from pathlib import Path

import numpy as np
import pytest

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import Manifest, check_manifest
from sspa.stage2_training.data.reviewed.answers import Answers
from sspa.stage2_training.data.reviewed.applied import corrected, reviewed_manifest
from sspa.stage2_training.data.reviewed.entries import Answer, Head, ReviewedLabel
from sspa.stage2_training.evaluation.protocols import get_protocol

ORIGIN = Path("mine.review.jsonl")
HEAD = Head(labels=(ReviewedLabel(key="cat", text="cat"), ReviewedLabel(key="dog", text="a dog")))


def photos(root: Path, count: int) -> list[str]:
    names = [f"deep/{number}.jpg" for number in range(count)]
    (root / "deep").mkdir()
    for name in names:
        (root / name).write_bytes(b"x")
    return names


def answers_of(*given: Answer) -> Answers:
    answers = Answers()
    for entry in (HEAD, *given):
        answers.add(entry)
    return answers


def whole_review(names: list[str]) -> Answers:
    marks = [{"cat": 1, "dog": 0}, {"cat": 0, "dog": 1}, {"cat": 1, "dog": -1}]
    return answers_of(*(Answer(path=name, marks=marks[place % 3]) for place, name in enumerate(names)))


def test_reviewed_suggested_and_unknown_marks_stay_apart(tmp_path: Path) -> None:
    names = photos(tmp_path, 30)
    answers = whole_review(names)
    answers.add(Answer(path=names[1], marks={"cat": 1}, suggested={"cat": 0.1}, chosen="grid"))
    found = reviewed_manifest(answers, ORIGIN, tmp_path, None, val=0.1, test=0.2, seed=0)
    check_manifest(found, "x")
    assert list(found.paths) == names
    assert found.labels.labels == (Label("cat", "cat"), Label("dog", "a dog"))
    assert found.targets[:3].tolist() == [[1, 0], [1, 1], [1, -1]]
    assert {split: len(found.rows_of(split)) for split in ("train", "val", "test")} == {
        "train": 21,
        "val": 3,
        "test": 6,
    }
    assert "reviewed by hand (31 answers" in found.note


def test_a_photo_asked_about_for_one_label_is_unknown_for_the_others(tmp_path: Path) -> None:
    names = photos(tmp_path, 31)
    answers = whole_review(names[:30])
    answers.add(Answer(path=names[30], marks={"dog": 1}, chosen="grid"))
    found = reviewed_manifest(answers, ORIGIN, tmp_path, None, 0.1, 0.2, 0)
    assert found.targets[30].tolist() == [-1, 1]


def test_photos_that_vanished_are_left_out_and_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = photos(tmp_path, 30)
    (tmp_path / names[0]).unlink()
    found = reviewed_manifest(whole_review(names), ORIGIN, tmp_path, None, 0.1, 0.2, 0)
    assert len(found.paths) == 29
    assert "1 reviewed photos are gone and are left out, the first is deep/0.jpg" in capfd.readouterr().err


def test_a_chosen_label_set_orders_the_labels_and_new_ones_are_unknown(tmp_path: Path) -> None:
    names = photos(tmp_path, 30)
    labels = LabelSet("mine", (Label("dog", "dog"), Label("fox", "fox")))
    found = reviewed_manifest(whole_review(names), ORIGIN, tmp_path, labels, 0.1, 0.2, 0)
    # Photos of which nothing is known are not in it.
    assert len(found.paths) == 20
    assert found.targets[0].tolist() == [0, -1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "nothing was answered yet"),
        ([Answer(path="gone.jpg", marks={"cat": 1})], "none of its 1 photos is below"),
        ([Answer(path="deep/0.jpg", marks={"cat": -1})], "says nothing about cat, dog"),
        ([Answer(path="deep/0.jpg", marks={"cat": 1})], "too few to draw"),
    ],
)
def test_reviews_that_nothing_can_be_made_of(tmp_path: Path, given: list[Answer], said: str) -> None:
    photos(tmp_path, 1)
    with pytest.raises(UserError, match=said):
        reviewed_manifest(answers_of(*given), ORIGIN, tmp_path, None, 0.1, 0.2, 0)


def manifest(names: list[str]) -> Manifest:
    labels = LabelSet("mine", (Label("dog", "dog"), Label("cat", "cat")))
    targets = np.tile(np.array([[0, 1]], np.int8), (len(names), 1))
    ids = Texts(names)
    return Manifest("mine", labels, get_protocol("custom"), "", ids, ids, Texts(["train"] * len(names)), targets)


def test_corrections_replace_marks_that_were_answered_and_no_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = manifest(["a.jpg", "b.jpg", "c.jpg"])
    answers = answers_of(
        Answer(path="b.jpg", marks={"dog": 1, "cat": 1}), Answer(path="c.jpg", marks={"cat": -1}),
        Answer(path="z.jpg", marks={"cat": 0}),
    )  # fmt: skip
    after = corrected(before, answers, ORIGIN, tmp_path)
    assert after.targets.tolist() == [[0, 1], [1, 1], [0, -1]]
    assert before.targets.tolist() == [[0, 1]] * 3
    assert after.note == "2 marks corrected by a review"
    said = capfd.readouterr().err
    assert "2 marks of 2 images were corrected" in said
    assert "1 reviewed photos are not in the manifest" in said


def test_corrections_of_other_photos_or_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reviews none of the images"):
        corrected(manifest(["a.jpg"]), answers_of(Answer(path="b.jpg", marks={"cat": 0})), ORIGIN, tmp_path)
    with pytest.raises(UserError, match="reviews none of the labels"):
        corrected(manifest(["a.jpg"]), answers_of(Answer(path="a.jpg", marks={"fox": 0})), ORIGIN, tmp_path)


def test_photos_that_were_not_answered_may_be_in_train_without_labels(tmp_path: Path) -> None:
    names = photos(tmp_path, 30)
    alone = reviewed_manifest(whole_review(names[:20]), ORIGIN, tmp_path, None, 0.1, 0.2, 0)
    found = reviewed_manifest(whole_review(names[:20]), ORIGIN, tmp_path, None, 0.1, 0.2, 0, unanswered=True)
    check_manifest(found, "here")
    assert list(found.paths) == [*alone.paths, *sorted(names[20:])]
    # The splits of those that were answered are the same.
    assert list(found.splits) == [*alone.splits, *["train"] * 10]
    assert (found.targets[20:] == -1).all()
    assert (found.targets[:20] == alone.targets).all()


def test_test_is_drawn_from_the_photos_that_were_drawn_at_random(tmp_path: Path) -> None:
    names = photos(tmp_path, 100)
    useful, at_random = names[:60], names[60:]
    answers = whole_review(useful)
    for place, name in enumerate(at_random[:12]):
        answers.add(Answer(path=name, marks={"cat": place % 2, "dog": 1}, chosen="random"))
    found = reviewed_manifest(answers, ORIGIN, tmp_path, None, 0.1, 0.2, 0)
    # A fifth of 72 would be more than there are.
    assert [found.paths[row] for row in found.rows_of("test")] == at_random[:12]
    assert len(found.rows_of("val")) == pytest.approx(7, abs=1)
    assert "test: 12 of those drawn at random, so it is like the folder" in found.note
    for place, name in enumerate(at_random[12:]):
        answers.add(Answer(path=name, marks={"cat": place % 2, "dog": 1}, chosen="random"))
    found = reviewed_manifest(answers, ORIGIN, tmp_path, None, 0.1, 0.2, 0)
    assert {found.paths[row] for row in found.rows_of("test")} < set(at_random)
    assert len(found.rows_of("test")) == pytest.approx(20, abs=2)
    assert len(found.rows_of("val")) == pytest.approx(10, abs=2)


def test_of_few_photos_drawn_at_random_or_none_with_a_label_there_is_no_test(tmp_path: Path) -> None:
    names = photos(tmp_path, 80)
    few, blank = whole_review(names[:60]), whole_review(names[:60])
    for name in names[60:69]:
        few.add(Answer(path=name, marks={"cat": 1, "dog": 1}, chosen="random"))
    for name in names[60:]:
        blank.add(Answer(path=name, marks={"cat": 0, "dog": 0}, chosen="random"))
    for answers, count in ((few, 14), (blank, 16)):
        found = reviewed_manifest(answers, ORIGIN, tmp_path, None, 0.1, 0.2, 0)
        assert len(found.rows_of("test")) == pytest.approx(count, abs=2)
        assert set(found.rows_of("test").tolist()) & set(range(60))
        assert "like the folder" not in found.note
