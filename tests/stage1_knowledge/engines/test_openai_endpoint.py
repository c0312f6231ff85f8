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
        self.flying = self.most = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})

    def do_POST(self) -> None:
        if self.server.raw is not None:
            self.rfile.read(int(self.headers["content-length"]))
            self.reply(*self.server.raw(self))
            return None
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
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
    engine = OpenAiEndpoint(server.url, Sampling(temperature=0.5), concurrency=4)
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
    assert len(list(OpenAiEndpoint(server.url, Sampling(), concurrency=2).answer(requests(5)))) == 5


def test_a_refusal_that_stays_is_one_line_and_earlier_answers_were_given(server: Server) -> None:
    engine = OpenAiEndpoint(server.url, Sampling(), concurrency=1)
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
        {"choices": [{"message": None}]},
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
        list(OpenAiEndpoint(server.url, Sampling()).answer(requests(1)))


def test_a_key_and_a_password_are_shown_to_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "my-secret-key")
    monkeypatch.setattr("sspa.stage1_knowledge.engines.openai_endpoint.RETRIES", 0)
    server.raw = lambda handler: (
        401,
        {"error": {"message": f"wrong: {handler.headers['authorization']} sk-abcdefghij"}},
    )
    url = server.url.replace("http://", "http://user:pass@") + "?token=hidden"
    with pytest.raises(UserError, match=r"refused \(401") as caught:
        list(OpenAiEndpoint(url, Sampling(), model="m").answer(requests(1)))
    said = f"{caught.value} {caught.value.__cause__}"
    assert not [secret for secret in ("my-secret-key", "sk-abc", "hidden") if secret in said]


def test_a_reply_has_a_largest_size(server: Server) -> None:
    server.raw = lambda _: (200, b" " * (5 << 20))
    with pytest.raises(UserError, match="more than 4,194,304 bytes"):
        list(OpenAiEndpoint(server.url, Sampling()).answer(requests(1)))


def test_the_schema_and_a_cut_answer(server: Server) -> None:
    engine = OpenAiEndpoint(server.url, Sampling(repetition_penalty=1.0), schema=Fields.model_json_schema())
    ((_, answer),) = engine.answer(requests(1, room=5))
    assert answer.finish == "length"
    (body,) = server.bodies
    assert body["response_format"]["json_schema"]["schema"]["required"] == list(Fields.model_fields)
    assert "repetition_penalty" not in body


def test_what_cannot_work_is_said(server: Server) -> None:
    with pytest.raises(UserError, match="not a URL"):
        OpenAiEndpoint("localhost:8000", Sampling())
    server.models = ["a", "b"]
    with pytest.raises(UserError, match=r"serves 2 models \(a, b\); name --model"):
        _ = OpenAiEndpoint(server.url, Sampling()).identity
    assert OpenAiEndpoint("http://127.0.0.1:9/v1", Sampling(), model="m").identity.model == "m"


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sspa.stage1_knowledge.engines.openai_endpoint.RETRIES", 0)
    with pytest.raises(UserError, match=r"cannot be reached.*is the server up"):
        list(OpenAiEndpoint("http://127.0.0.1:9/v1", Sampling(), model="m").answer(requests(1)))


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
            engine = OpenAiEndpoint(url, Sampling())
            assert engine.identity.model == "smol"
            asked = [Request("a", chat, 0, 24), Request("b", chat, 1, 24), Request("c", chat, 0, 24)]
            answers = {request.key: answer for request, answer in engine.answer(asked)}
            assert set(answers) == {"a", "b", "c"}
            assert all(answer.text and 0 < answer.output_tokens <= 24 for answer in answers.values())
            fields = OpenAiEndpoint(url, Sampling(), schema=Fields.model_json_schema())
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
