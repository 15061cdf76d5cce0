"""`dps-local rpc-server`."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from dps_local.cli.terminal import terminal
from dps_local.engine import native, rpc, self_test
from dps_local.engine.context import default_threads


def rpc_server(
    host: Annotated[str, typer.Option(help="Address to listen at; other machines can reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 50052,
    threads: Annotated[int | None, typer.Option("--threads", "-t", min=1, help="Default: all, up to 16.")] = None,
) -> None:
    """Lend this machine to a model that is larger than the one it runs on: --rpc there names this one.

    It computes on the GPU, or else on the CPU, for one program at a time, until Ctrl-C.
    """
    endpoint = rpc.Endpoint.parse(f"{host}:{port}")
    self_test.check(terminal.notice, offload=True)
    lent = [native.load().described(device) for device in rpc.own_devices()]
    if not endpoint.is_here:
        terminal.notice(
            f"whoever reaches {endpoint} can use this machine and read what others send it; nothing is encrypted"
        )
    terminal.notice(f"lends {', '.join(device['description'] for device in lent)} at {endpoint}; Ctrl-C ends it")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to put away, and Python waits while ggml serves
    rpc.serve(endpoint, threads or default_threads())
