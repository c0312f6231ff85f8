"""A small server that implements just enough of the OpenAI API, and fails on purpose."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sspa.stage1_knowledge.engines.contract import Request

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


def requests(count: int, room: int = 80) -> list[Request]:
    return [Request(f"key{i}", ({"role": "user", "content": f"What is {i}?"},), i, room) for i in range(count)]
