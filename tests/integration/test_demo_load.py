"""The demo under load: 200 requests, 50 at once, beside clients that take their time."""

import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from sspa.stage2_training.inference.tagger import Tagger

from .demo_server import memory_of, served
from .tiny_run import LABELS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed (extra demo)"),
]

REQUESTS, AT_ONCE, SLOW = 100, 50, 20
# What may stay: the last images of the latest hundred visitors, and what allocators keep.
GROWTH = 48 << 20


@pytest.fixture
def server(trained_run: Path, tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    with served(trained_run, tmp_path) as (address, process):
        yield address, process


def _answer(address: str, image: Path, visitor: str) -> dict[str, float]:
    """What the page shows to a visitor who uploads an image: labels with their probabilities."""
    # The address is plain HTTP: reading the machine's certificates would be most of what a visitor costs.
    with httpx.Client(base_url=f"{address}/gradio_api", timeout=120, verify=False) as client:
        (path,) = client.post("/upload", files={"files": (image.name, image.read_bytes())}).raise_for_status().json()
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, None, "one for all labels", 0.5]
        call = {"data": data, "fn_index": 0, "session_hash": visitor}
        client.post("/queue/join", json=call).raise_for_status()
        with client.stream("GET", "/queue/data", params={"session_hash": visitor}) as events:
            for line in events.iter_lines():
                event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if event.get("msg") == "process_completed":
                    parts = [part for part in event["output"]["data"] if isinstance(part, dict)]
                    return {one["label"]: one["confidence"] for part in parts for one in part.get("confidences") or ()}
    raise AssertionError("the stream ended without an answer")


def test_many_visitors_beside_slow_ones(
    server: tuple[str, "subprocess.Popen[bytes]"], trained_run: Path, squares: Path, tmp_path: Path
) -> None:
    address, process = server
    images = [squares / "pictures" / f"test{number}.png" for number in range(24)]
    tagger = Tagger.load(trained_run, device="cpu")
    wanted = [
        {LABELS.texts[LABELS.keys.index(key)]: value for key, value in tags.probabilities.items()}
        for tags in tagger(images)
    ]

    def ask(number: int) -> None:
        place = number % len(images)
        assert _answer(address, images[place], f"visitor{number}") == pytest.approx(wanted[place], abs=1e-4)

    def ask_many(first: int) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(ask, range(first, first + REQUESTS)))

    host, port = address.removeprefix("http://").split(":")
    with ExitStack() as opened:
        for number in range(SLOW):
            # Half of them stop within the headers, half within an upload of which they announce more.
            slow = opened.enter_context(socket.create_connection((host, int(port))))
            end = "" if number % 2 else "\r\n--b\r\n"
            slow.sendall(
                f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 90000\r\n"
                f"Content-Type: multipart/form-data; boundary=b\r\n{end}".encode()
            )
        ask_many(0)
        before = memory_of(process)
        ask_many(REQUESTS)
        assert memory_of(process) < before + GROWTH
    ask(0)
    assert process.poll() is None
    assert "Traceback" not in (tmp_path / "said.txt").read_text()
