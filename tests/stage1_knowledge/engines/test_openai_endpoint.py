"""The endpoint engine, against a small server that fails on purpose."""

from collections.abc import Callable

import pytest

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.answer_forms import Fields
from sspa.stage1_knowledge.answer_text import UNFINISHED
from sspa.stage1_knowledge.engines.contract import Sampling
from sspa.stage1_knowledge.engines.openai_endpoint import OpenAiEndpoint

from .endpoint_server import DESCRIPTION, Handler, Server, requests


def test_each_request_is_answered_once_and_few_fly_at_a_time(server: Server) -> None:
    engine = OpenAiEndpoint([server.url], Sampling(temperature=0.5), concurrency=4)
    assert engine.identity.model == "the-model"
    answers = {request.key: answer for request, answer in engine.answer(requests(30))}
    assert set(answers) == {f"key{i}" for i in range(30)}
    assert 2 <= server.most <= 4
    answer = answers["key0"]
    assert (answer.text, answer.finish, answer.prompt_tokens, answer.output_tokens, answer.cached_tokens) == (
        DESCRIPTION, "stop", 12, 9, 8,
    )  # fmt: skip
    assert sorted(body["seed"] for body in server.bodies) == list(range(30))
    assert {body["temperature"] for body in server.bodies} == {0.5}
    assert {body["repetition_penalty"] for body in server.bodies} == {1.05}
    engine.close()


def test_failures_that_pass_are_tried_again(server: Server) -> None:
    server.failures = [503, 429, 500]
    assert len(list(OpenAiEndpoint([server.url], Sampling(), concurrency=2).answer(requests(5)))) == 5


def test_a_refusal_that_stays_is_one_line_and_earlier_answers_were_given(server: Server) -> None:
    engine = OpenAiEndpoint([server.url], Sampling(), concurrency=1)
    arriving = engine.answer(requests(5))
    assert [next(arriving)[0].key for _ in range(2)] == ["key0", "key1"]
    server.failures = [400] * 3
    with pytest.raises(UserError, match=r"refused \(400: .*told to fail.*kept"):
        list(arriving)


@pytest.mark.parametrize(
    "content",
    [
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []},
        {"id": "1"},
        {"choices": None, "error": {"message": "no more room", "code": 429}},
        {"choices": "many"},
        {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}},
        b"<html>hi</html>",
        b'"hello"',
        b"[" * 100_000,
        b"",
    ],
)
def test_what_is_no_answer_is_one_line(server: Server, content: dict | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sspa.stage1_knowledge.engines.openai_endpoint.RETRIES", 0)
    server.raw = lambda _: (200, content)
    with pytest.raises(UserError, match=r"--endpoint http://127"):
        list(OpenAiEndpoint([server.url], Sampling()).answer(requests(1)))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"<html>hi</html>", r"text \('<html>hi</html>'\), not with a chat completion; does the URL end in /v1\?"),
        ({"choices": []}, r"no choices, not with a chat completion; does the URL end in /v1\?"),
        ({"choices": None, "error": {"message": "no more room"}}, r"an error \(no more room\)"),
    ],
)
def test_what_came_instead_of_an_answer_is_named(
    server: Server, reply: dict | bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "reply", _with_type(Handler.reply, "text/html" if isinstance(reply, bytes) else ""))
    server.raw = lambda _: (200, reply)
    with pytest.raises(UserError, match=said):
        list(OpenAiEndpoint([server.url], Sampling(), model="m").answer(requests(1)))
    if isinstance(reply, bytes):
        monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.reply(200, reply))
        with pytest.raises(UserError, match=r"no list of models; does the URL end in /v1\?"):
            _ = OpenAiEndpoint([server.url], Sampling()).identity


def _with_type(reply: Callable, content_type: str) -> Callable:
    """The handler's reply with another content type, where one is given."""

    def send(handler: Handler, status: int, content: dict | bytes) -> None:
        if content_type:
            plain = handler.send_header
            handler.send_header = lambda name, value: plain(  # type: ignore[method-assign]
                name, content_type if name == "content-type" else value
            )
        reply(handler, status, content)

    return send


@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        (
            {"content": [{"type": "text", "text": "A "}, {"type": "image"}, {"text": "cat."}]},
            "stop",
            ("A cat.", "stop"),
        ),
        ({"content": None}, "stop", ("", "stop")),
        (None, "content_filter", ("", "filter")),
        ({"content": ""}, "content_filter", ("", "filter")),
        ({"content": None, "reasoning_content": "Hm."}, "length", (UNFINISHED, "length")),
        ({"content": "A cat.", "reasoning_content": "Hm."}, "stop", ("A cat.", "stop")),
        ({"content": "", "reasoning": "Hm."}, "stop", (UNFINISHED, "stop")),
    ],
)
def test_the_text_of_a_message(server: Server, message: dict | None, finish: str, expected: tuple[str, str]) -> None:
    server.raw = lambda _: (200, {"choices": [{"index": 0, "message": message, "finish_reason": finish}]})
    ((_, answer),) = OpenAiEndpoint([server.url], Sampling()).answer(requests(1))
    assert (answer.text, answer.finish) == expected


def test_a_key_and_a_password_are_shown_to_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "my-secret-key")
    monkeypatch.setattr("sspa.stage1_knowledge.engines.openai_endpoint.RETRIES", 0)
    server.raw = lambda handler: (
        401,
        {"error": {"message": f"wrong: {handler.headers['authorization']} sk-abcdefghij"}},
    )
    url = server.url.replace("http://", "http://user:pass@") + "?token=hidden"
    with pytest.raises(UserError, match=r"refused \(401") as caught:
        list(OpenAiEndpoint([url], Sampling(), model="m").answer(requests(1)))
    said = f"{caught.value} {caught.value.__cause__}"
    assert not [secret for secret in ("my-secret-key", "sk-abc", "hidden") if secret in said]


def test_a_reply_has_a_largest_size(server: Server) -> None:
    server.raw = lambda _: (200, b" " * (5 << 20))
    with pytest.raises(UserError, match="more than 4,194,304 bytes"):
        list(OpenAiEndpoint([server.url], Sampling()).answer(requests(1)))


def test_the_schema_and_a_cut_answer(server: Server) -> None:
    engine = OpenAiEndpoint([server.url], Sampling(repetition_penalty=1.0), schema=Fields.model_json_schema())
    ((_, answer),) = engine.answer(requests(1, room=5))
    assert answer.finish == "length"
    (body,) = server.bodies
    assert body["response_format"]["json_schema"]["schema"]["required"] == list(Fields.model_fields)
    assert "repetition_penalty" not in body


def test_what_cannot_work_is_said(server: Server) -> None:
    with pytest.raises(UserError, match="not a URL"):
        OpenAiEndpoint(["localhost:8000"], Sampling())
    server.models = ["a", "b"]
    with pytest.raises(UserError, match=r"serves 2 models \(a, b\); name --model"):
        _ = OpenAiEndpoint([server.url], Sampling()).identity
    assert OpenAiEndpoint(["http://127.0.0.1:9/v1"], Sampling(), model="m").identity.model == "m"


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sspa.stage1_knowledge.engines.openai_endpoint.RETRIES", 0)
    with pytest.raises(UserError, match=r"cannot be reached.*is the server up"):
        list(OpenAiEndpoint(["http://127.0.0.1:9/v1"], Sampling(), model="m").answer(requests(1)))
