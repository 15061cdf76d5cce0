"""Nothing leaves this machine: no test opens a socket to another, and everything works where there is no network."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import loopback
import pytest
from program import PROFILE, PROGRAM, QUICK
from tiny import TinyModel

ALONE = ["unshare", "--user", "--map-root-user", "--net"]  # a network namespace with nothing in it
TRIES = {
    "socket.create_connection(('192.0.2.1', 80))": 86,
    "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.1', 53))": 86,
    "socket.getaddrinfo('example.org', 443)": 86,
    "socket.socket(socket.AF_INET6).connect_ex(('2001:db8::1', 80))": 86,
    "socket.create_connection(socket.create_server(('127.0.0.1', 0)).getsockname()).close()": 0,
    "socket.socket(socket.AF_UNIX).connect_ex('/nowhere')": 0,
    "socket.getaddrinfo('localhost', 80)": 0,
}


@pytest.mark.parametrize(("line", "code"), TRIES.items())
def test_a_program_that_leaves_this_machine_ends(line: str, code: int) -> None:
    guarded = PROGRAM[-1].removesuffix("from dps_local.cli.app import main; main()")
    assert guarded != PROGRAM[-1]
    command = [sys.executable, "-P", "-c", f"{guarded}\nimport socket\ntry: {line}\nexcept OSError: pass"]
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == code


def test_a_test_that_leaves_this_machine_fails_even_where_the_failure_is_caught() -> None:
    with pytest.raises(PermissionError, match=r"a test must not reach 192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80))
    assert loopback.tried == ["socket.getaddrinfo 192.0.2.1"]
    loopback.tried.clear()  # else this test would fail


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode != 0,
    reason="no network namespace can be made here",
)
def test_everything_works_without_a_network(tiny_model: TinyModel, tmp_path: Path) -> None:
    profile, model = tmp_path / "ada.json", tiny_model()
    profile.write_text(json.dumps(PROFILE))
    environment = {f"DPS_LOCAL_{name.upper()}": str(tmp_path / name) for name in ("cache", "data", "state")}
    interfaces = subprocess.run(
        [*ALONE, sys.executable, "-c", "import socket; print(socket.if_nameindex())"], capture_output=True, check=True
    )
    assert interfaces.stdout.strip() == b"[(1, 'lo')]"
    chosen = ["-m", str(model), "-p", str(profile), *QUICK, "--threads", "1"]
    commands = {
        "score": [*chosen, "--json"],
        "chat": [*chosen, "-n", "4"],
        "generate": [*chosen, "-n", "4", "hi"],
        "conversations": ["list"],
        "privacy": ["wipe", "-p", str(profile), "--yes"],
        "doctor": [],
    }
    for name, arguments in commands.items():
        result = subprocess.run(
            [*ALONE, *PROGRAM, name, *arguments],
            input="hello\n" if name == "chat" else "",
            capture_output=True,
            text=True,
            env=environment | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, (name, result.stderr)
