"""An audit hook: no socket leads anywhere but to this machine, in the tests and in the programs that they start.

This file is run as it is by programs under test, before they begin: it imports nothing of the tests.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Iterator
from typing import Any

AWAY = 86  # exit code of a program that tried
tried: list[str] = []  # by this process
_allowed = False


def host_of(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Return the host that an event of a socket is about; None where it is no host's."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        host = arguments[1][0]  # else the path of a Unix socket
    else:
        return None
    return host.decode() if isinstance(host, bytes) else host if isinstance(host, str) else None


def leads_away(host: str) -> bool:
    """Whether a host is another machine: a name that has to be looked up is."""
    try:
        return not (host in ("", "localhost") or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return True


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Let an attempt fail, and be known even where the failure is caught."""
    host = host_of(event, arguments) if event.startswith("socket.") else None
    if host is not None and leads_away(host) and not _allowed:
        tried.append(f"{event} {host}")
        raise PermissionError(f"a test must not reach {host} ({event})")


def end(event: str, arguments: tuple[Any, ...]) -> None:
    """End a program under test at an attempt."""
    host = host_of(event, arguments) if event.startswith("socket.") else None
    if host is not None and leads_away(host):
        os.write(2, f"this program must not reach {host} ({event})\n".encode())
        os._exit(AWAY)


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """Let this process reach other machines: to download what the tests need."""
    global _allowed
    _allowed = True
    try:
        yield
    finally:
        _allowed = False


if __name__ == "__main__":
    sys.addaudithook(end)
