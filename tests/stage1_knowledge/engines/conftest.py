"""A server for the endpoint engine."""

import threading
from collections.abc import Iterator

import pytest

from .endpoint_server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
