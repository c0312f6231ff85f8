"""Which requests come from the page itself: other sites, and names that lead here, are refused."""

import ipaddress
import socket
from collections.abc import Mapping


def safe_headers(policy: str) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of every answer; `policy` says what the page may load, beside the page's own images."""
    # The browser itself blocks anything that the page would load from, or send to, another host.
    rules = f"default-src 'self'; {policy}img-src 'self' data: blob:; base-uri 'self'; form-action 'self'; "
    return (
        (b"content-security-policy", f"{rules}frame-ancestors 'none'".encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )


def foreign(headers: Mapping[str, str], hosts: frozenset[str] | None, port: int) -> str | None:
    """Why a request is not the page's own; None if it is.

    Holds Host to the bound address, against DNS rebinding, and Origin to Host, against other sites' pages.

    Args:
        headers: by lower-case name.
        hosts: accepted Host headers; see `hosts_of`.
        port: that the page listens on.
    """
    host = headers.get("host", "")
    if not (host in hosts if hosts is not None else _is_this_machine(host, port)):
        return "this page is not served under that name"
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return "requests from other sites are not answered"
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        return "requests from other sites are not answered"
    return None


def hosts_of(host: str, port: int) -> frozenset[str] | None:
    """The Host headers under which a page on `host` is reached; None where that is any address of this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return frozenset({f"{host}:{port}"}) | (_loopback(port) if host == "localhost" else frozenset())
    if address.is_unspecified:
        return None
    shown = f"[{host}]" if address.version == 6 else host
    return frozenset({f"{shown}:{port}"}) | (_loopback(port) if address.is_loopback else frozenset())


def _loopback(port: int) -> frozenset[str]:
    return frozenset(f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]"))


def _is_this_machine(host: str, port: int) -> bool:
    name, _, number = host.rpartition(":")
    if number != str(port):
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.lower() in {"localhost", socket.gethostname().lower()}
    return True
