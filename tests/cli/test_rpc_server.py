"""--rpc and `dps-local rpc-server`: what is refused, what is said, and an answer that two servers compute."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from program import PROFILE, QUICK, Program
from rpc_servers import PROGRAM, run, serving
from tiny import TinyModel

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="built and tried on Linux only")


def test_offline_refuses_another_machine(inside: Program, tiny_model: TinyModel) -> None:
    line = inside.fails("generate", "-m", tiny_model(), "--offline", "--rpc", "127.0.0.1:1,192.0.2.1:50052", "hi")
    assert line == ("error: --offline refuses 192.0.2.1:50052: RPC servers on this machine alone are allowed with it")


def test_what_leaves_the_machine_is_said(program: Program, tiny_model: TinyModel) -> None:
    said = program("generate", "-m", tiny_model(), "--rpc", "192.0.2.1:50052", "hi").stderr
    assert (
        "192.0.2.1:50052 gets the model's weights, and numbers from which your text, profile and chat can be "
        "restored; nothing is encrypted on the way\n"
    ) in said
    assert "restored" not in program("generate", "-m", tiny_model(), "--rpc", "127.0.0.1:1", "hi").stderr


@pytest.mark.parametrize("variable", ["LLAMA_ARG_RPC", "DPS_LOCAL_RPC"])
def test_a_variable_is_as_good(inside: Program, tiny_model: TinyModel, variable: str) -> None:
    inside.environment = inside.environment | {variable: "192.0.2.1:1"}
    assert "--offline refuses 192.0.2.1:1: " in inside.fails("generate", "-m", tiny_model(), "--offline", "hi")


def test_what_is_no_server_is_a_usage_error(inside: Program) -> None:
    result = inside("generate", "--rpc", "box.lan", "hi")
    assert result.returncode == 2
    assert "'box.lan' is no RPC server: write HOST:PORT" in result.stderr


@pytest.mark.slow
@on_linux
def test_two_servers_give_the_answer_of_one_machine(tiny_model: TinyModel, tmp_path: Path) -> None:
    profile = tmp_path / "ada.json"
    profile.write_text(json.dumps(PROFILE))
    chosen = ["-m", tiny_model(), "-p", profile, *QUICK, "-t", "1", "--engine", "eager", "--no-prefix-cache"]
    generate = ["generate", *chosen, "-n", "12", "--temp", "0", "--gamma", "0.5", "--json", "Where is the harbour?"]
    folders = {f"DPS_LOCAL_{name.upper()}": str(tmp_path / name) for name in ("cache", "data", "state")}
    with serving() as (one, _), serving() as (other, _):
        scored = run(PROGRAM, "score", *chosen, "--rpc", f"{one},{other}", "--json", **folders)
        assert scored.returncode == 0, scored.stderr
        there = run(PROGRAM, *generate, "--rpc", f"{one},{other}", **folders)
    here = run(PROGRAM, *generate, **folders)
    assert here.returncode == 0, here.stderr
    answers = [json.loads(answer.stdout) for answer in (there, here)]
    assert answers[0]["tokens"] == answers[1]["tokens"]
    assert any(token["p_plain"] != token["p_steered"] for token in answers[0]["tokens"])


@pytest.mark.slow
@on_linux
def test_a_server_says_what_it_lends_until_ctrl_c() -> None:
    with serving() as (endpoint, process):
        shown = run(PROGRAM, "doctor", "--rpc", endpoint, "--json")
        unasked = run(PROGRAM, "doctor", "--json")
        taken = run(PROGRAM, "rpc-server", "--host", "0.0.0.0", "--port", endpoint.port)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    names = [[d["name"] for d in json.loads(done.stdout)["backends"]] for done in (shown, unasked)]
    assert names == [["CPU", "RPC0"], ["CPU"]]
    assert (process.returncode, out) == (-signal.SIGINT, "")
    assert err.splitlines()[-1].endswith(f" at {endpoint}; Ctrl-C ends it")
    warning, _, error = taken.stderr.splitlines()
    address = f"0.0.0.0:{endpoint.port}"
    assert warning == (
        f"whoever reaches {address} can use this machine and read what others send it; nothing is encrypted"
    )
    assert error == f"error: cannot listen at {address} (Address already in use)"
    assert taken.returncode == 1
