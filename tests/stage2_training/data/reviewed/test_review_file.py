"""The file of answers: nothing is lost or twice, whatever happens to the process, the disk or the labels."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.reviewed.answers import read_answers
from sspa.stage2_training.data.reviewed.entries import Answer, Undo
from sspa.stage2_training.data.reviewed.review_file import open_review

LABELS = LabelSet("mine", (Label("cat", "cat"), Label("dog", "dog")))


def written(path: Path, *answers: Answer, labels: LabelSet = LABELS) -> Path:
    with open_review(path, labels) as file:
        for answer in answers:
            file.add(answer)
    return path


def answer(path: str, **marks: Any) -> Answer:
    return Answer(path=path, marks=marks)


def test_answers_are_read_as_they_were_given_and_the_last_one_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", answer("a.jpg", cat=1, dog=0), answer("b.jpg", cat=-1), answer("a.jpg", dog=1))
    found = read_answers(path)
    assert found.marks() == {"a.jpg": {"cat": 1, "dog": 1}, "b.jpg": {"cat": -1}}
    assert found.labels == LABELS.labels


def test_an_answer_is_in_the_file_before_add_returns(tmp_path: Path) -> None:
    with open_review(tmp_path / "a.jsonl", LABELS) as file:
        file.add(answer("a.jpg", cat=1))
        assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])["path"] == "a.jpg"


def test_the_same_answer_twice_is_kept_once(tmp_path: Path) -> None:
    one = answer("a.jpg", cat=1)
    path = written(tmp_path / "a.jsonl", one, one)
    assert len(path.read_text().splitlines()) == 2
    # Also after a restart, when the page sends again what it does not know to be kept.
    written(path, one)
    assert len(path.read_text().splitlines()) == 2


def test_an_answer_taken_back_does_not_stand_and_stays_so(tmp_path: Path) -> None:
    first, second = answer("a.jpg", cat=1), answer("a.jpg", cat=0)
    path = written(tmp_path / "a.jsonl", first, second)
    with open_review(path, LABELS) as file:
        file.add(Undo(undo=second.id))
        assert file.answers.marks() == {"a.jpg": {"cat": 1}}
        file.add(second)  # sent again late
    assert read_answers(path).marks() == {"a.jpg": {"cat": 1}}


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_line_that_was_cut_off_is_left_out_and_then_removed(
    tmp_path: Path, cut: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "a.jsonl", answer("a.jpg", cat=1), answer("b.jpg", cat=1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert set(read_answers(path).marks()) == {"a.jpg"}
    assert "its last line was cut off" in capfd.readouterr().err
    written(path, answer("c.jpg", dog=1))
    assert set(read_answers(path).marks()) == {"a.jpg", "c.jpg"}
    # Removed: reading it again has nothing to say.
    capfd.readouterr()
    assert len(read_answers(path).standing) == 2
    assert capfd.readouterr().err == ""


def test_zeros_at_the_end_after_a_power_failure_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", answer("a.jpg", cat=1))
    path.write_bytes(path.read_bytes() + bytes(40))
    assert set(read_answers(path).marks()) == {"a.jpg"}


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", answer("a.jpg", cat=1), answer("b.jpg", cat=1))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + '{"path": 3}\n' + lines[2])
    with pytest.raises(UserError, match=r"a\.jsonl: line 2 is damaged .*; remove or correct it"):
        read_answers(path)


def test_a_stray_carriage_return_is_damage_and_not_the_end(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", answer("a.jpg", cat=1), answer("b.jpg", cat=1), answer("c.jpg", cat=1))
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = lines[0] + lines[1].replace(b"a.jpg", b"a\r.jpg") + lines[2] + lines[3]
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="line 2 is damaged"):
        written(path)
    assert path.read_bytes() == damaged
    # As an editor of another system ends lines.
    path.write_bytes(b"".join(lines).replace(b"\n", b"\r\n"))
    assert set(read_answers(path).marks()) == {"a.jpg", "b.jpg", "c.jpg"}


def test_two_pages_on_one_file_are_refused(tmp_path: Path) -> None:
    with (
        open_review(tmp_path / "a.jsonl", LABELS),
        pytest.raises(UserError, match="is writing it; close that page first"),
        open_review(tmp_path / "a.jsonl", LABELS),
    ):
        pass


def test_a_renamed_label_is_known_by_its_key(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.jsonl", answer("a.jpg", cat=1, dog=0))
    renamed = LabelSet("mine", (Label("cat", "house cat"), Label("fox", "fox")))
    written(path, answer("b.jpg", cat=1, fox=1), labels=renamed)
    found = read_answers(path)
    assert found.labels == renamed.labels
    assert found.marks() == {"a.jpg": {"cat": 1, "dog": 0}, "b.jpg": {"cat": 1, "fox": 1}}
    said = capfd.readouterr().err
    assert "no longer asked about, the answers are kept: dog" in said
    assert "unknown in earlier answers: fox" in said


def test_a_review_of_other_labels_is_refused_and_stays(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", answer("a.jpg", cat=1))
    before = path.read_bytes()
    other = LabelSet("other", (Label("ship", "ship"),))
    with pytest.raises(UserError, match=r"is a review of other labels \(cat, dog\); choose another --out file"):
        written(path, labels=other)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["path,labels\n", '{"path": "a.jpg"}\n', "[1, 2]\n", "{}", "\n"])
def test_another_file_is_refused_and_stays(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="not a review file"):
        written(path, answer("a.jpg", cat=1))
    assert path.read_text() == content


def test_other_endings_are_refused_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"take .*mine\.review\.jsonl"):
        written(tmp_path / "mine.review.parquet")


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    path.write_text(path.read_text().replace('"sspa_review":1', '"sspa_review":2'))
    with pytest.raises(UserError, match="version 2 is newer"):
        read_answers(path)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    with open_review(path, LABELS) as file:
        file.add(answer("a.jpg", cat=1))
        before = path.read_bytes()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(UserError, match=r"cannot be kept \(No space left on device\); free some room"):
                file.add(answer("b.jpg", cat=1))
        assert path.read_bytes() == before
        assert set(file.answers.marks()) == {"a.jpg"}
        file.add(answer("b.jpg", cat=1))
    assert set(read_answers(path).marks()) == {"a.jpg", "b.jpg"}
