"""The gate of the demo: what the page sends passes, and everything else is answered before Gradio sees it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from sspa.stage2_training.demo.gate import Gate, Message, Receive, Scope, Send
from sspa.stage2_training.demo.uploads import Uploads
from sspa.stage2_training.serving.origin import hosts_of

HOST = "127.0.0.1:7860"


class Page:
    """Stands in for Gradio: notes what reaches it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", scope["method"] == "POST"
        while more:
            message: Message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.seen.append((scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "uploads" / "abc").mkdir(parents=True)
    (tmp_path / "uploads" / "abc" / "photo.png").write_bytes(b"photo")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "uploads" / "link.png").symlink_to(tmp_path / "secret.png")
    return tmp_path / "uploads"


def ask(page: Page, folder: Path, method: str, path: str, host: str = HOST, **options: Any) -> httpx.Response:
    """One request to the gate; `headers`, `content`, `json` as in httpx."""
    gate = Gate(page, Uploads(folder, 1000), hosts_of("127.0.0.1", 7860), 7860, frozenset({0, 1}), 100)

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url=f"http://{host}") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def call(page: Page, folder: Path, data: Any, number: Any = 0, **changes: Any) -> httpx.Response:
    body = {"data": data, "fn_index": number, "session_hash": "abc", **changes}
    return ask(page, folder, "POST", "/gradio_api/queue/join", json=body)


def file(path: Path | str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


def test_the_pages_own_requests_pass(page: Page, folder: Path) -> None:
    photo = folder / "abc" / "photo.png"
    assert ask(page, folder, "GET", "/").text == "page"
    assert ask(page, folder, "GET", "/assets/index.js").status_code == 200
    assert ask(page, folder, "GET", f"/gradio_api/file={photo}").status_code == 200
    assert ask(page, folder, "POST", "/gradio_api/upload", content=b"x" * 100).status_code == 200
    assert page.seen[-1] == ("/gradio_api/upload", b"x" * 100)
    found = call(page, folder, [file(photo, url=f"http://{HOST}/gradio_api/file={photo}"), None])
    assert found.status_code == 200
    # What leads elsewhere is taken out.
    assert json.loads(page.seen[-1][1])["data"][0] == file(photo, url=None)
    assert "default-src 'self'" in found.headers["content-security-policy"]


@pytest.mark.parametrize(
    "place", ["secret.png", "uploads/link.png", "uploads/abc", "uploads/../secret.png", "absent.png"]
)
def test_files_come_from_the_upload_folder_only(page: Page, folder: Path, place: str) -> None:
    path = folder.parent / place
    answers = [call(page, folder, [{"a": [file(path)]}]), call(page, folder, [file(path)], 1)]
    assert [(answer.status_code, answer.text) for answer in answers] == [
        (403, "only files that were uploaded here are read")
    ] * 2
    # What exists and what does not are told apart by nothing.
    answer = ask(page, folder, "GET", f"/gradio_api/file={path}")
    assert (answer.status_code, answer.text) == (404, "not found")
    assert page.seen == []


@pytest.mark.parametrize("path", [7, None, ["a"], {"path": "x"}, "\0", "http://elsewhere/x.png", "a" * 10_000])
def test_paths_of_other_kinds_are_refused(page: Page, folder: Path, path: Any) -> None:
    assert call(page, folder, [{"path": path, "meta": {"_type": "gradio.FileData"}}]).status_code == 403
    assert page.seen == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/proxy=http://elsewhere"),
        ("GET", "/monitoring"),
        ("GET", "/gradio_api/file/etc/hostname"),
        ("GET", "/../../etc/hostname"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/upload"),
        ("POST", "/login"),
        ("PUT", "/"),
        ("DELETE", "/gradio_api/upload"),
    ],
)
def test_other_routes_do_not_exist(page: Page, folder: Path, method: str, path: str) -> None:
    assert ask(page, folder, method, path).status_code in (404, 405)
    assert page.seen == []


@pytest.mark.parametrize("number", [2, -1, "0", None, True, 0.5, [0]])
def test_unknown_functions_are_answered(page: Page, folder: Path, number: Any) -> None:
    assert call(page, folder, [], number).status_code == 404
    assert page.seen == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"[]",
        b'{"fn_index": 0}',
        b'{"fn_index": 0, "data": {}}',
        b'{"fn_index": 0, "data": []}',
        b'{"fn_index": 0, "data": [], "session_hash": ["a"]}',
        b"[" * 100_000,
        b'{"fn_index": 0, "session_hash": "a", "data": [' + b'{"a": ' * 50 + b"1" + b"}" * 50 + b"]}",
    ],
)
def test_what_is_no_call_is_answered(page: Page, folder: Path, content: bytes) -> None:
    assert 400 <= ask(page, folder, "POST", "/gradio_api/queue/join", content=content).status_code < 500
    assert page.seen == []


def test_bodies_are_bounded_with_and_without_a_length(page: Page, folder: Path) -> None:
    async def chunks() -> Any:
        for _ in range(100):
            yield b" " * 100_000

    for path in ("/gradio_api/queue/join", "/gradio_api/upload"):
        assert ask(page, folder, "POST", path, content=b" " * (2 << 20)).status_code == 413
        assert ask(page, folder, "POST", path, content=chunks()).status_code == 413
        assert ask(page, folder, "POST", path, content=b"", headers={"content-length": "-1"}).status_code == 413
    assert page.seen == []


@pytest.mark.parametrize("host", ["evil.example:7860", "127.0.0.1:80", "127.0.0.1", "evil.example"])
def test_other_host_names_are_refused(page: Page, folder: Path, host: str) -> None:
    """Against DNS rebinding: another site's name that leads to this machine."""
    assert ask(page, folder, "GET", "/", headers={"host": host}).status_code == 403
    assert page.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"https://{HOST}"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_other_sites_pages_cannot_upload(page: Page, folder: Path, headers: dict[str, str]) -> None:
    answer = ask(page, folder, "POST", "/gradio_api/upload", content=b"x", headers=headers)
    assert answer.status_code == 403
    assert page.seen == []
    assert ask(
        page, folder, "POST", "/gradio_api/upload", content=b"x", headers={"origin": f"http://{HOST}"}
    ).is_success


def test_hosts_are_those_of_the_bound_address(page: Page, folder: Path) -> None:
    assert hosts_of("127.0.0.1", 7860) == {"127.0.0.1:7860", "localhost:7860", "[::1]:7860"}
    assert hosts_of("localhost", 1) == {"127.0.0.1:1", "localhost:1", "[::1]:1"}
    assert hosts_of("10.0.0.7", 80) == {"10.0.0.7:80"}
    assert hosts_of("fe80::1", 80) == {"[fe80::1]:80"}
    assert hosts_of("0.0.0.0", 80) is None
    gate = Gate(page, Uploads(folder, 1), hosts_of("0.0.0.0", 7860), 7860, frozenset(), 1)

    async def status(host: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url=f"http://{HOST}") as client:
            return (await client.get("/", headers={"host": host})).status_code

    found = {
        host: asyncio.run(status(host)) for host in ("10.1.2.3:7860", "[::1]:7860", "evil.example:7860", "10.1.2.3")
    }
    assert list(found.values()) == [200, 200, 403, 403]
