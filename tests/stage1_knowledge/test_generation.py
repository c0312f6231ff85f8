"""Runs of `generate`: what is asked, what is reused, what a kill leaves behind, and locking."""

import dataclasses
import json
from pathlib import Path

import pytest
from filelock import FileLock

from sspa.shared.errors import UserError
from sspa.shared.knowledge import read_knowledge
from sspa.shared.knowledge_format import read_table, write_knowledge
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.engines.contract import Answer
from sspa.stage1_knowledge.engines.replay import Replay
from sspa.stage1_knowledge.exchange import import_
from sspa.stage1_knowledge.generation import generate, journal_path, run_record_path
from sspa.stage1_knowledge.prompt import read_prompt


def rows(path: Path) -> list[dict]:
    return read_table(path)[0].to_pylist()


def test_every_label_is_asked_once_and_traceable(make_job, teller) -> None:
    job = make_job(samples=2)
    outcome = generate(job, teller)
    assert (outcome.rows, outcome.asked, outcome.answers) == (6, 6, 6)
    assert set(teller.asked.values()) == {1}
    assert [(row["label"], row["sample"]) for row in rows(job.output)] == [
        (label, sample) for label in ("cat", "dog", "cow") for sample in (0, 1)
    ]
    row = rows(job.output)[3]
    assert (row["model"], row["revision"], row["engine"]) == ("teller", "r1", "scripted 1")
    assert (row["prompt"], row["prompt_hash"], row["seed"]) == ("natural.jinja", job.prompt.hash, 1000)
    assert json.loads(row["sampling"]) == {
        "temperature": 0.7,
        "top_p": 0.9,
        "repetition_penalty": 1.05,
        "max_tokens": 80,
    }
    assert row["key"] in teller.asked
    assert not journal_path(job.output).exists()
    assert json.loads(run_record_path(job.output).read_text())["answers"] == 6


def test_a_second_run_asks_nothing_and_writes_nothing(make_job, teller, scripted) -> None:
    job = make_job()
    generate(job, teller)
    before = job.output.stat()
    silent = scripted(lambda *_: pytest.fail("asked"))
    outcome = generate(job, silent)
    assert not outcome.written
    assert (job.output.stat().st_mtime_ns, job.output.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_with_a_label_added_only_that_one_is_asked(make_job, teller) -> None:
    generate(make_job("cat", "dog"), teller)
    teller.asked.clear()
    job = make_job("ox", "dog", "cat")
    assert generate(job, teller).answers == 1
    assert [row["label"] for row in rows(job.output)] == ["ox", "dog", "cat"]


def test_a_poor_answer_is_asked_again_with_other_seeds_and_the_least_bad_is_kept(make_job, scripted) -> None:
    said = {0: "", 1: "I am sorry, I can not say what that is.", 2: "Cats are kept by many people as pets.", 3: ""}
    engine = scripted(lambda _, seed: said[seed])
    job = make_job("cat")
    assert generate(job, engine).answers == 4
    (row,) = rows(job.output)
    assert (row["description"], row["verdict"], row["attempts"], row["seed"]) == (said[2], "doubtful", 4, 2)
    assert row["reason"].startswith("not visual")
    assert [answer["text"] for answer in json.loads(row["answers"])] == list(said.values())
    assert generate(job, scripted(lambda *_: pytest.fail("asked"))).rows == 1


def test_a_good_retry_ends_the_asking(make_job, scripted) -> None:
    good = "A cat is a small furry animal with pointed ears, often seen with a bowl."
    engine = scripted(lambda _, seed: "" if seed == 0 else good)
    job = make_job("cat")
    generate(job, engine)
    (row,) = rows(job.output)
    assert (row["description"], row["verdict"], row["attempts"], row["seed"]) == (good, "good", 2, 1)


def test_more_retries_go_on_where_the_old_run_stopped(make_job, scripted) -> None:
    engine = scripted(lambda *_: "")
    generate(make_job("cat", retries=1), engine)
    job = make_job("cat", retries=3)
    generate(job, engine)
    assert sorted(engine.asked.values()) == [1, 1, 1, 1]
    assert rows(job.output)[0]["attempts"] == 4


def test_a_cut_answer_is_given_more_room(make_job, scripted) -> None:
    engine = scripted(lambda *_: Answer("A cat is a small furry", "length", 10, 80))
    generate(make_job("cat"), engine)
    assert [request.max_tokens for request in engine.requests] == [80, 160, 320, 320]


@pytest.mark.parametrize("after", range(1, 6))
def test_a_run_that_dies_goes_on_and_ends_in_the_same_bytes(make_job, scripted, teller, tmp_path, after: int) -> None:
    labels = ("cat", "dog", "cow", "ox", "hen")

    def poor_at_first(question: str, seed: int) -> str:
        return "" if "dog" in question and seed < 2 else teller.script(question, seed)

    whole = make_job(*labels, output=tmp_path / "whole.parquet")
    generate(whole, scripted(poor_at_first))

    class Killed(BaseException):
        pass

    def dies(question: str, seed: int) -> str:
        if len(dying.requests) > after:
            raise Killed
        return poor_at_first(question, seed)

    dying = scripted(dies)
    job = make_job(*labels)
    with pytest.raises(Killed):
        generate(job, dying)
    answered = {request.key for request in dying.requests[:-1]}
    assert len(journal_path(job.output).read_bytes().splitlines()) == after
    second = scripted(poor_at_first)
    generate(job, second)
    assert not answered & set(second.asked)
    assert job.output.read_bytes() == whole.output.read_bytes()


def test_other_settings_ask_anew_and_keep_the_old_file(make_job, teller, capsys) -> None:
    job = make_job()
    generate(job, teller)
    old = job.output.read_bytes()
    outcome = generate(dataclasses.replace(job, sampling=dataclasses.replace(job.sampling, temperature=1.0)), teller)
    assert outcome.answers == 3
    assert outcome.kept_old is not None
    assert outcome.kept_old.read_bytes() == old
    assert "3 rows of the old" in capsys.readouterr().err


def test_what_a_person_wrote_survives(make_job, teller) -> None:
    job = make_job()
    generate(job, teller)
    changed = rows(job.output)
    changed[1] |= {"description": "Whatever a person says.", "origin": "human"}
    write_knowledge(job.output, changed)
    other = dataclasses.replace(job, sampling=dataclasses.replace(job.sampling, seed=5))
    generate(other, teller)
    assert [row["origin"] for row in rows(job.output)] == ["model", "human", "model"]
    assert rows(job.output)[1]["description"] == "Whatever a person says."


def test_like_sentences_of_two_labels_are_doubtful_and_not_asked_again(make_job, scripted) -> None:
    engine = scripted(lambda *_: "The cat or dog is a small furry animal with pointed ears and a long tail.")
    job = make_job("cat", "dog")
    assert generate(job, engine).answers == 2
    assert [row["reason"].partition(":")[0] for row in rows(job.output)] == [
        "nearly the same as dog's",
        "nearly the same as cat's",
    ]
    assert not generate(job, engine).written
    alone = make_job("cat")
    generate(alone, engine)
    assert rows(alone.output)[0]["verdict"] == "good"


def test_the_cache_serves_other_label_files_and_is_what_replay_repeats(make_job, teller, scripted, tmp_path) -> None:
    cache = AnswerStore(tmp_path / "cache")
    first = make_job("cat", "dog")
    generate(first, teller, cache)
    second = make_job("dog", "cow", output=tmp_path / "second.parquet")
    assert generate(second, teller, cache).answers == 1
    third = make_job("cow", "cat", output=tmp_path / "third.parquet")
    assert generate(third, Replay(cache)).answers == 2
    assert read_knowledge(third.output).descriptions["cow"] == read_knowledge(second.output).descriptions["cow"]
    again = make_job("cat", "dog", output=tmp_path / "again.parquet")
    generate(again, Replay(cache))
    assert again.output.read_bytes() == first.output.read_bytes()
    with pytest.raises(UserError, match="has no answer to 'Describe"):
        generate(make_job("ox", output=tmp_path / "fourth.parquet"), Replay(cache))
    with pytest.raises(UserError, match="holds no answers of nobody"):
        Replay(cache, "nobody")


def test_what_a_killed_run_was_told_reaches_the_cache(make_job, teller, scripted, tmp_path) -> None:
    class Killed(BaseException):
        pass

    job = make_job("cat", "dog")

    def dies_before_it_can_write(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sspa.stage1_knowledge.generation._write", dies_before_it_can_write)
        with pytest.raises(Killed):
            generate(job, teller)
    cache = AnswerStore(tmp_path / "cache")
    generate(job, scripted(lambda *_: pytest.fail("asked")), cache)
    again = make_job("dog", "cat", output=tmp_path / "again.parquet")
    assert generate(again, Replay(cache)).rows == 2


def test_labels_that_are_shown_alike_share_an_answer_and_are_up_to_date(make_job, teller) -> None:
    job = make_job("Katze\tcat", "chat\tcat")
    assert generate(job, teller).answers == 1
    assert [row["label"] for row in rows(job.output)] == ["Katze", "chat"]
    assert not generate(job, teller).written


def test_replay_tells_recorded_models_apart(make_job, teller, scripted, tmp_path) -> None:
    cache = AnswerStore(tmp_path / "cache")
    generate(make_job("cat"), teller, cache)
    served = dataclasses.replace(teller.identity, engine="openai-api", revision="")
    generate(make_job("cat", output=tmp_path / "b.parquet"), scripted(teller.script, served), cache)
    with pytest.raises(UserError, match="name one with --model: teller@endpoint, teller@r1"):
        Replay(cache)
    assert Replay(cache, "teller@endpoint").identity == served
    upgraded = dataclasses.replace(teller.identity, engine="scripted 2")
    generate(make_job("dog", output=tmp_path / "c.parquet"), scripted(teller.script, upgraded), cache)
    assert Replay(cache, "teller@r1").identity.revision == "r1"


def test_the_second_run_on_one_output_says_who_holds_it(make_job, teller, tmp_path) -> None:
    job = make_job()
    with FileLock(tmp_path / ".mine.parquet.lock"):
        (tmp_path / ".mine.parquet.holder").write_text("process 7 on thishost\n")
        with pytest.raises(UserError, match="process 7 on thishost is writing it"):
            generate(job, teller)
        write_knowledge(job.output, [{"label": "cat", "description": "x"}])
        (tmp_path / "corrected.csv").write_text("label,sample,description\ncat,0,y\n")
        with pytest.raises(UserError, match="process 7 on thishost is writing it"):
            import_(job.output, tmp_path / "corrected.csv")
    assert not teller.asked


def test_a_damaged_old_file_stops_the_run_before_anything_is_asked(make_job, teller) -> None:
    job = make_job()
    job.output.write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match="no Parquet file"):
        generate(job, teller)
    assert not teller.asked
    assert job.output.read_bytes() == b"PAR1 nonsense"


def test_a_template_of_ones_own_is_asked_and_recorded(make_job, teller, tmp_path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% block demonstration_label %}x{% endblock %}{% block demonstration_answer %}y{% endblock %}"
        "{% block question %}Say what you see of a {{ text }} shows{% endblock %}"
    )
    job = make_job("cat", prompt=read_prompt(path))
    generate(job, teller)
    assert teller.requests[0].messages == (
        {"role": "user", "content": "Say what you see of a x shows"},
        {"role": "assistant", "content": "y"},
        {"role": "user", "content": "Say what you see of a cat shows"},
    )
    assert rows(job.output)[0]["prompt"] == "own.jinja"
