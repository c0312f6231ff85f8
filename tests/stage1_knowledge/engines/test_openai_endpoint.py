"""The endpoint engine, against a small server that fails on purpose, and against a real vLLM server."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.answer_forms import Fields
from sspa.stage1_knowledge.answer_text import UNFINISHED
from sspa.stage1_knowledge.engines.contract import Request, Sampling
from sspa.stage1_knowledge.engines.openai_endpoint import OpenAiEndpoint

DESCRIPTION = "A cat is a small furry animal with a tail."


class Server(ThreadingHTTPServer):
    """Implements just enough of the OpenAI API; fails on request, and counts concurrent requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = ["the-model"]
        self.failures: list[int] = []
        self.raw: Callable[[Handler], tuple[int, dict | bytes]] | None = None
        self.bodies: list[dict] = []
        self.headers: dict[str, str] = {}
        self.flying = self.most = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server
    body: dict

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})

    def do_POST(self) -> None:
        body = self.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.raw is not None:
            self.reply(*self.server.raw(self))
            return None
        with self.server.lock:
            self.server.flying += 1
            self.server.most = max(self.server.most, self.server.flying)
            failure = self.server.failures.pop() if self.server.failures else 0
        time.sleep(0.02)
        with self.server.lock:
            self.server.flying -= 1
            if not failure:
                self.server.bodies.append(body)
        if failure:
            return self.reply(failure, {"error": {"message": "told to fail"}})
        message = {"role": "assistant", "content": DESCRIPTION}
        choice = {"index": 0, "finish_reason": "length" if body["max_tokens"] < 10 else "stop", "message": message}
        usage = {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}
        usage["prompt_tokens_details"] = {"cached_tokens": 8}  # type: ignore[assignment]
        self.reply(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice],
                         "usage": usage})  # fmt: skip
        return None

    def reply(self, status: int, content: dict | bytes) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    thread.join()


def requests(count: int, room: int = 80) -> list[Request]:
    return [Request(f"key{i}", ({"role": "user", "content": f"What is {i}?"},), i, room) for i in range(count)]


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


def test_servers_take_turns_and_one_that_dies_is_left_out(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sspa.stage1_knowledge.engines.openai_endpoint.RETRIES", 0)
    other = Server()
    threading.Thread(target=other.serve_forever, daemon=True).start()
    engine = OpenAiEndpoint([server.url, other.url], Sampling(), concurrency=2)
    assert engine.identity.model == "the-model"

    answers = engine.answer(requests(40))
    first = [next(answers)[0].key for _ in range(12)]
    assert min(len(server.bodies), len(other.bodies)) >= 4
    other.raw = lambda _: (503, {"error": {"message": "shutting down"}})
    rest = [request.key for request, _ in answers]

    assert sorted(first + rest) == sorted(f"key{i}" for i in range(40))
    assert capsys.readouterr().err.count("gives no more answers; going on with the others") == 1
    server.raw = other.raw
    with pytest.raises(UserError, match=r"refused \(503: shutting down\)"):
        list(engine.answer(requests(4)))
    engine.close()
    other.shutdown()


def test_servers_of_two_models_need_a_name(server: Server) -> None:
    with pytest.raises(UserError, match="is given twice"):
        OpenAiEndpoint([server.url, server.url], Sampling())
    other = Server()
    threading.Thread(target=other.serve_forever, daemon=True).start()
    other.models = ["another"]
    with pytest.raises(UserError, match=r"serves 2 models \(another, the-model\); name --model"):
        _ = OpenAiEndpoint([server.url, other.url], Sampling()).identity
    other.shutdown()


def test_organisation_and_project_are_those_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    seen: list[tuple[str | None, str | None]] = []

    def note(handler: Handler) -> tuple[int, dict]:
        seen.append((handler.headers["OpenAI-Organization"], handler.headers["OpenAI-Project"]))
        return 400, {"error": {"message": "enough"}}

    server.raw = note
    with pytest.raises(UserError, match="enough"):
        list(OpenAiEndpoint([server.url], Sampling(), model="m").answer(requests(1)))
    assert seen[0] == ("org-1", "proj-1")


@pytest.mark.slow
@pytest.mark.skipif("SSPA_VLLM_SERVER" not in os.environ, reason="a minute and a half: set SSPA_VLLM_SERVER=1")
def test_a_real_vllm_server_answers_sentences_and_fields(tmp_path: Path) -> None:
    if find_spec("vllm") is None:
        pytest.skip("no vLLM build is installed (extra cpu or gpu)")
    from sspa.stage1_knowledge.embedded_model import model_folder

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "PASSIVE",
                "HF_HUB_OFFLINE": "1"}  # fmt: skip
    serve = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_folder()),
             "--served-model-name", "smol", "--dtype", "bfloat16", "--max-model-len", "1024", "--enforce-eager",
             "--no-enable-chunked-prefill", "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            serve, env={**os.environ, **settings}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_up(f"http://127.0.0.1:{port}/health", process, tmp_path / "server.log")
            url = f"http://127.0.0.1:{port}/v1"
            chat = ({"role": "user", "content": "Describe the look of a cat in one sentence."},)
            engine = OpenAiEndpoint([url], Sampling())
            assert engine.identity.model == "smol"
            asked = [Request("a", chat, 0, 24), Request("b", chat, 1, 24), Request("c", chat, 0, 24)]
            answers = {request.key: answer for request, answer in engine.answer(asked)}
            assert set(answers) == {"a", "b", "c"}
            assert all(answer.text and 0 < answer.output_tokens <= 24 for answer in answers.values())
            fields = OpenAiEndpoint([url], Sampling(), schema=Fields.model_json_schema())
            ((_, answer),) = fields.answer([Request("d", chat, 0, 40)])
            assert re.match(r'\s*\{\s*"appearance"\s*:\s*"', answer.text)
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            pytest.fail(f"the server ended: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the server did not come up: {log.read_text()[-2000:]}")
