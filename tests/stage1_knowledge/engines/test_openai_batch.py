"""Batch files: questions out and answers in, with a provider played by the test."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow.parquet import read_table
from typer.testing import CliRunner

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.answer_forms import Fields
from sspa.stage1_knowledge.commands import app
from sspa.stage1_knowledge.engines.contract import Request, Sampling
from sspa.stage1_knowledge.engines.openai_batch import BatchAnswers, write_batch
from sspa.stage1_knowledge.engines.openai_endpoint import OpenAiEndpoint


def _requests(count: int) -> list[Request]:
    return [Request(f"key{i}", ({"role": "user", "content": f"What is {i}?"},), i, 80) for i in range(count)]


def _result(key: str, text: str = "A cat.", **choice: object) -> dict:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 12, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}
    body = {"choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}], "usage": usage}
    return {"id": "b", "custom_id": key, "response": {"status_code": 200, "body": body}, "error": None}


def _write(path: Path, *results: object) -> Path:
    path.write_text("".join(f"{json.dumps(result)}\n" for result in results))
    return path


def test_each_question_is_a_line_of_the_openai_api(tmp_path: Path) -> None:
    count = write_batch(tmp_path / "b.jsonl", _requests(2), "m", Sampling(temperature=0.5), Fields.model_json_schema())

    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert count == 2
    assert [line["custom_id"] for line in lines] == ["key0", "key1"]
    assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
    body = lines[1]["body"]
    assert body.pop("response_format")["json_schema"]["name"] == "fields"
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "What is 1?"}],
        "temperature": 0.5, "top_p": 0.9, "seed": 1, "max_completion_tokens": 80,
    }  # fmt: skip


def test_answers_come_back_by_key_in_any_order(tmp_path: Path) -> None:
    results = _result("key1", "One.", finish_reason="length"), _result("unknown"), _result("key0", "Zero.")

    engine = BatchAnswers(_write(tmp_path / "r.jsonl", *results), "m", Sampling(repetition_penalty=1.1))
    assert engine.left_out == ("chat_template_kwargs", "repetition_penalty")
    answers = {request.key: answer for request, answer in engine.answer(_requests(2))}

    assert [(answers[key].text, answers[key].finish) for key in ("key0", "key1")] == [
        ("Zero.", "stop"), ("One.", "length"),
    ]  # fmt: skip
    assert (answers["key0"].prompt_tokens, answers["key0"].output_tokens, answers["key0"].cached_tokens) == (12, 9, 8)
    # What a server of this model answered before is known to a batch, and the other way round.
    assert engine.identity == OpenAiEndpoint(["http://127.0.0.1:9/v1"], Sampling(), model="m").identity


def test_what_is_missing_or_failed_is_said_after_what_is_there(tmp_path: Path) -> None:
    refused = {"custom_id": "key1", "response": {"status_code": 400, "body": {"error": {"message": "too long"}}}}
    answers = BatchAnswers(_write(tmp_path / "r.jsonl", _result("key0"), refused), "m", Sampling()).answer(_requests(3))

    assert next(answers)[0].key == "key0"
    with pytest.raises(UserError, match=r"no answer to 2 of 3 questions \(1 failed, .*too long.*\); the others"):
        next(answers)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\xff\n", "not text in UTF-8"),
        (b"hello\n", "line 1: is no result of a batch"),
        (b'{"custom_id": "key0", "response": {"body": {}}}\n', "line 1: answers with no choices"),
        (b"[" * 100_000 + b"\n", "line 1: is no result of a batch"),
        (b'{"messages": []}\n', "line 1: is no result of a batch"),
    ],
)
def test_another_file_is_one_line(content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(UserError) as refused:
        list(BatchAnswers(tmp_path / "r.jsonl", "m", Sampling()).answer(_requests(1)))
    assert words in str(refused.value)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("cat\ndog\n")

    def invoke(*options: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["generate", "--labels", "mine.txt", "--samples", "2", *options])
        # `main` turns a user's mistake into one line; here it is the exception itself.
        assert (result.exit_code == 0) == (code == 0), result.output
        return result.stderr + str(result.exception or "")

    return invoke


def test_a_batch_from_the_labels_to_the_table(run: Callable[..., str], tmp_path: Path) -> None:
    options = ("--model", "gpt-9-nano", "--retries", "0")
    assert "4 questions written; once they are answered" in run(*options, "--batch-out", "out.jsonl")
    asked = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    def answer(line: dict) -> dict:
        label = line["body"]["messages"][-1]["content"].split(" of a ")[1].split(" shows")[0]
        return _result(line["custom_id"], f"A {label} is a small furry animal with {line['body']['seed']} tails.")

    _write(tmp_path / "in.jsonl", *map(answer, asked[:3]))
    assert "has no answer to 1 of 4 questions" in run(*options, "--batch-in", "in.jsonl", code=2)
    assert "rest.jsonl: 1 " in run(*options, "--batch-out", "rest.jsonl")
    assert (tmp_path / "rest.jsonl").read_text().strip() == json.dumps(asked[3], ensure_ascii=False)

    _write(tmp_path / "in.jsonl", answer(asked[3]))
    run(*options, "--batch-in", "in.jsonl")
    assert read_table(tmp_path / "artifacts" / "mine.parquet")["label"].to_pylist() == ["cat", "cat", "dog", "dog"]


def test_a_batch_needs_the_name_of_the_model(run: Callable[..., str]) -> None:
    assert "a batch needs --model" in run("--batch-out", "out.jsonl", code=2)
    assert "write a batch, or read its results" in run("--batch-out", "a", "--batch-in", "b", code=2)
