"""What a server refuses, for a time or for good: arguments, values, questions, too many requests."""

import re
import time

import pytest

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.answer_forms import Fields
from sspa.stage1_knowledge.engines.contract import Sampling
from sspa.stage1_knowledge.engines.openai_endpoint import OpenAiEndpoint

from .endpoint_server import DESCRIPTION, Handler, Server, requests


class Choosy:
    """A server's reply that refuses arguments, each in its own words, and records what it accepted."""

    def __init__(self, **refusals: object) -> None:
        self.refusals, self.accepted, self.refused = refusals, list[dict](), 0

    def __call__(self, handler: Handler) -> tuple[int, dict]:
        body = handler.body
        for name, refusal in self.refusals.items():
            if name in body:
                self.refused += 1
                return (422 if isinstance(refusal, list) else 400), (
                    {"detail": refusal} if isinstance(refusal, list) else {"error": {"message": refusal}}
                )
        self.accepted.append(body)
        return 200, {"choices": [{"message": {"role": "assistant", "content": DESCRIPTION}, "finish_reason": "stop"}]}


def test_arguments_that_a_server_refuses_are_left_out_and_said_once(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    choosy = Choosy(
        repetition_penalty="Unrecognized request argument supplied: repetition_penalty",
        max_tokens="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        seed=[{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}],
        chat_template_kwargs="Unknown name 'chat_template_kwargs'; known are temperature, top_p",
        response_format="json_schema is not supported by this model",
    )
    server.raw = choosy
    engine = OpenAiEndpoint([server.url], Sampling(), schema=Fields.model_json_schema(), concurrency=4)
    assert len(list(engine.answer(requests(12)))) == 12
    assert {frozenset(body) for body in choosy.accepted} == {
        frozenset(["model", "messages", "temperature", "top_p", "max_completion_tokens"])
    }
    assert choosy.accepted[0]["max_completion_tokens"] == 80
    assert choosy.refused <= 4 * 5
    said = capsys.readouterr().err
    for name in choosy.refusals:
        assert said.count(f"refuses {name};") == 1
    assert sorted(engine.left_out) == ["chat_template_kwargs", "repetition_penalty", "response_format", "seed"]


def test_a_value_that_a_server_refuses_gives_way_to_its_default(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def only_one(handler: Handler) -> tuple[int, dict]:
        if handler.body["temperature"] != 1:
            return 400, {"error": {"message": "'temperature' does not support 0.7. Only the default (1) is supported."}}
        return 200, {"choices": [{"message": {"content": DESCRIPTION}}]}

    server.raw = only_one
    assert len(list(OpenAiEndpoint([server.url], Sampling(), concurrency=3).answer(requests(6)))) == 6
    assert capsys.readouterr().err.count("refuses temperature 0.7; its default 1 is sent instead") == 1


@pytest.mark.parametrize(
    ("status", "message", "advice"),
    [
        (400, "this model's context has 128 tokens", "are kept$"),
        (400, "max_tokens is too large: 80", "are kept$"),
        (401, "wrong key", r"check the key in \$OPENAI_API_KEY; the answers so far are kept$"),
        (404, "no such page", r"does the URL end in /v1\? is --model the name"),
        (429, "slower, please", "run the same command again$"),
        (500, "oh", "run the same command again$"),
    ],
)
def test_a_refusal_advises_to_ask_again_only_where_that_can_help(
    server: Server, status: int, message: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sspa.stage1_knowledge.engines.openai_endpoint.RETRIES", 0)
    server.raw = lambda _: (status, {"error": {"message": message}})
    with pytest.raises(UserError, match=rf"refused \({status}: .*{message}") as caught:
        list(OpenAiEndpoint([server.url], Sampling(), model="m").answer(requests(1)))
    assert re.search(advice, str(caught.value)), str(caught.value)


def test_a_question_that_the_filter_refuses_does_not_stop_the_others(server: Server) -> None:
    def filtering(handler: Handler) -> tuple[int, dict]:
        if "is 3?" in handler.body["messages"][0]["content"]:
            return 400, {"error": {"message": "The response was filtered.", "code": "content_filter"}}
        return 200, {"choices": [{"message": {"content": DESCRIPTION}}]}

    server.raw = filtering
    answers = {request.key: answer for request, answer in OpenAiEndpoint([server.url], Sampling()).answer(requests(6))}
    assert [key for key, answer in answers.items() if answer.finish == "filter"] == ["key3"]


def test_a_rate_limit_is_waited_for_as_the_server_says(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sspa.stage1_knowledge.engines.openai_endpoint.RETRIES", 0)
    server.headers = {"retry-after": "0.2"}
    server.failures = [429] * 7
    began = time.monotonic()
    assert len(list(OpenAiEndpoint([server.url], Sampling(), concurrency=2).answer(requests(4)))) == 4
    assert time.monotonic() - began > 3 * 0.2
    assert "asks to wait for 0 s; waiting" in capsys.readouterr().err


def test_a_rate_limit_of_hours_ends_the_run_and_says_when_to_go_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sspa.stage1_knowledge.engines.openai_endpoint.RETRIES", 0)
    server.headers = {"retry-after": "7200"}
    server.failures = [429]
    with pytest.raises(UserError, match=r"asks to wait for 7,200 s; .*run the same command again then"):
        list(OpenAiEndpoint([server.url], Sampling()).answer(requests(1)))
