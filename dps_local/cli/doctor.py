"""`dps-local doctor`."""

from __future__ import annotations

import sys
from typing import Any

import dps_local
from dps_local.cli.options import JsonOption, RpcOption
from dps_local.cli.remedies import explained
from dps_local.cli.terminal import terminal
from dps_local.engine import native, registry, self_test
from dps_local.engine.rpc import server_at
from dps_local.errors import SelfTestError


def doctor(rpc: RpcOption = "", as_json: JsonOption = False) -> None:
    """Show what is installed, and test whether it works here: the patched library, CPU features, devices, folders.

    --rpc shows the devices of other machines, too.
    """
    tested = self_test.run()
    failure = SelfTestError(tested.failure, tested.remedy) if tested.failure else None
    engine: dict[str, Any] = {"libllama": None, "llama_cpp_python": None, "backends": [], "features": {}}
    engine |= tested.engine
    servers = [server_at(endpoint) for endpoint in rpc]
    engine["backends"] += [native.load().described(device) for server in servers for device in server.devices]
    report = {
        "dps_local": dps_local.__version__,
        "libllama": engine["libllama"],
        "patch": native.PATCH_VERSION,
        "llama_cpp_python": engine["llama_cpp_python"],
        "backends": engine["backends"],
        "features": engine["features"],
        "python": sys.version.split()[0],
        "models": str(registry.cache_dir()),
        "default_model": registry.default_name(),
        "default_model_downloaded": registry.is_downloaded(registry.default_name()),
        "self_test": explained(failure) if failure else "ok",
    }
    if as_json:
        terminal.json(report)
    else:
        devices = ", ".join(f"{d['name']}: {d['description']}" for d in engine["backends"])
        shown = report | {"backends": devices, "features": " ".join(engine["features"])}
        terminal.table(["", ""], [[key, str(value)] for key, value in shown.items()])
    if failure:
        raise failure
