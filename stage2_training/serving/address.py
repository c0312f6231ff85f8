"""Where a page is served: an address that is known to be free before anything is loaded."""

import ipaddress
import os
import socket
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.terminal import say


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any free one.

    Raises:
        UserError: there is no such address, or it is not available.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except socket.gaierror:
        raise UserError(f"--host {host}: there is no such address; use 127.0.0.1") from None
    except OverflowError:
        raise UserError(f"--port {port}: give a number from 0 (any free port) to 65535") from None
    except OSError as error:
        # Not error.strerror: the socket module appends the address to it.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"--host {host} --port {port}: cannot be listened on ({reason}); "
            "choose another port, or --port 0 for any free one"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve_until_interrupted(app: Any, listening: socket.socket, host: str) -> None:
    """Serve an ASGI app, after saying where, until Ctrl-C."""
    import uvicorn

    shown = f"[{host}]" if ":" in host else host
    say(f"page: http://{shown}:{listening.getsockname()[1]} (Ctrl-C ends it)")
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        say("stopped")
