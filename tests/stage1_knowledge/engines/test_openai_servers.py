"""Several servers, and a real one of vLLM."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.answer_forms import Fields
from sspa.stage1_knowledge.engines.contract import Request, Sampling
from sspa.stage1_knowledge.engines.openai_endpoint import OpenAiEndpoint

from .endpoint_server import Handler, Server, requests


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
