"""RPC servers on this machine, of a build of the libraries with RPC, and programs that use them."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from builds import built

from dps_local.engine.rpc import Endpoint
from dps_local.errors import NativeError

WITH_BUILD = """
import os, sys
import dps_local
dps_local.__path__.insert(0, os.path.dirname(os.environ["DPS_LOCAL_VENDOR"]))
"""
PROGRAM = "from dps_local.cli.app import main\nmain()"


@functools.cache
def environment() -> dict[str, str]:
    vendor = str(built("rpc", "-DGGML_RPC=on"))
    return os.environ | {"DPS_LOCAL_VENDOR": vendor, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def command(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-P", "-c", f"{WITH_BUILD}\n{code}", *map(str, arguments)]


def run(code: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(code, *arguments),
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def free_endpoint() -> Endpoint:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Endpoint(*listener.getsockname())


@contextmanager
def serving() -> Iterator[tuple[Endpoint, subprocess.Popen[str]]]:
    """A server and its process, which Ctrl-C ends."""
    endpoint = free_endpoint()
    start = command(PROGRAM, "rpc-server", "--port", endpoint.port, "--threads", 1)
    process = subprocess.Popen(start, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _wait_for(endpoint, process)
        yield endpoint, process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def _wait_for(endpoint: Endpoint, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            endpoint.check()
        except NativeError:
            time.sleep(0.05)
        else:
            return
    process.kill()
    raise AssertionError(process.communicate())
