"""The gate in front of the demo's page: which requests reach Gradio at all.

Gradio checks files only in an app that it has launched itself, not in a mounted one. The gate relies on none of its
checks: it knows the few routes that the page uses, and answers everything else.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sspa.stage2_training.demo.uploads import Uploads
from sspa.stage2_training.serving.origin import foreign, safe_headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = safe_headers(
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "worker-src 'self' blob:; "
)
_API = "/gradio_api"
_PAGES = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
_FOLDERS = ("/assets/", "/static/", "/svelte/", f"{_API}/heartbeat/")
_READ = (f"{_API}/queue/data", f"{_API}/upload_progress", f"{_API}/startup-events", f"{_API}/theme.css")
_FILE = f"{_API}/file="
_JOIN, _UPLOAD, _RESET = f"{_API}/queue/join", f"{_API}/upload", f"{_API}/reset"
_LARGEST_JSON = 1 << 20
# Beside the file: the form's borders and names.
_FORM = 1 << 16
_DEEPEST = 30


class _RefusedError(Exception):
    """A request that is answered here."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason


class Gate:
    """An ASGI app that passes on what the page itself sends, with bounded bodies and files from the upload folder only.

    Args:
        app: Gradio's.
        uploads: the one folder that files may come from.
        hosts: accepted Host headers, "127.0.0.1:7860"; None accepts every IP address and this machine's name.
        port: that the page listens on.
        functions: the numbers of the page's event handlers.
        largest_file: in bytes.
    """

    def __init__(
        self,
        app: App,
        uploads: Uploads,
        hosts: frozenset[str] | None,
        port: int,
        functions: frozenset[int],
        largest_file: int,
    ) -> None:
        self.app, self.uploads, self.hosts, self.port = app, uploads, hosts, port
        self.functions, self.largest_file = functions, largest_file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        # Here, since it comes with Gradio, which may not be installed.
        from starlette.requests import ClientDisconnect

        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            await self.app(scope, await self._checked(scope, receive), with_headers)
        except _RefusedError as refused:
            if not started:
                await _answer(with_headers, refused)
        except ClientDisconnect:
            return  # in the middle of an upload: nobody waits for an answer

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """What the app may read of the request's body.

        Raises:
            _RefusedError: the request is none of the page's.
        """
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if (problem := foreign(headers, self.hosts, self.port)) is not None:
            raise _RefusedError(403, problem)
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD"):
            if path.startswith(_FILE):
                # The same answer for every other file, whether it exists or not.
                if not self.uploads.contains(path[len(_FILE) :]):
                    raise _RefusedError(404, "not found")
            elif path not in _PAGES and path not in _READ and not path.startswith(_FOLDERS):
                raise _RefusedError(404, "not found")
            return receive
        if method != "POST" or path.rstrip("/") not in (_JOIN, _UPLOAD, _RESET):
            raise _RefusedError(404 if method == "POST" else 405, "not found")
        if path.rstrip("/") == _UPLOAD:
            limit = self.largest_file + _FORM
            self.uploads.make_room(_claimed(headers, limit))
            return _bounded(receive, limit)
        body = await _whole(receive, _claimed(headers, _LARGEST_JSON))
        if path.rstrip("/") == _JOIN:
            body = self._checked_call(body)
        return _replayed(body, receive)

    def _checked_call(self, body: bytes) -> bytes:
        """The call of an event handler: a known one, with files from the upload folder only."""
        try:
            call = json.loads(body)
        except (ValueError, RecursionError):
            raise _RefusedError(400, "not JSON") from None
        if not isinstance(call, dict) or not isinstance(call.get("data"), list):
            raise _RefusedError(400, "not a call")
        if type(call.get("fn_index")) is not int or call["fn_index"] not in self.functions:
            raise _RefusedError(404, "there is no such function")
        if not isinstance(call.get("session_hash"), str) or len(call["session_hash"]) > 100:
            raise _RefusedError(400, "not a call")
        self._check_files(call["data"])
        return json.dumps(call).encode()

    def _check_files(self, value: Any, depth: int = 0) -> None:
        if depth > _DEEPEST:
            raise _RefusedError(400, "nested too deeply")
        if isinstance(value, dict):
            if "path" in value and not (isinstance(value["path"], str) and self.uploads.contains(value["path"])):
                raise _RefusedError(403, "only files that were uploaded here are read")
            # Where the browser would show the file; a server that followed it could be sent anywhere.
            if "url" in value:
                value["url"] = None
            value = list(value.values())
        if isinstance(value, list):
            for entry in value:
                self._check_files(entry, depth + 1)


def _claimed(headers: dict[str, str], limit: int) -> int:
    """The body's size by its header; as much as is accepted where it says none.

    Raises:
        _RefusedError: it is too large, or no number.
    """
    text = headers.get("content-length")
    if text is None:
        return limit
    if not text.isdecimal() or int(text) > limit:
        raise _RefusedError(413, "too large")
    return int(text)


async def _whole(receive: Receive, limit: int) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _RefusedError(400, "cut short")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise _RefusedError(413, "too large")
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _bounded(receive: Receive, limit: int) -> Receive:
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise _RefusedError(413, "too large")
        return message

    return counted


async def _answer(send: Send, refused: _RefusedError) -> None:
    body = refused.reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
