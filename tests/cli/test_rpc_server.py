"""--rpc and `dps-local rpc-server`: what is refused, what is said, and an answer that two servers compute."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from program import QUICK, Program
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
def test_two_servers_give_the_answer_of_one_machine(
    model: Path, profile: Path, steering_map: Path, environment: dict[str, str]
) -> None:
    common = ["-m", model, *QUICK, "-t", "1", "--json"]
    score = ["score", *common, "-p", profile, "--no-reuse"]
    generate = ["generate", *common, "--map", steering_map, "--engine", "eager", "-n", "8", "--temp", "0", "say hello"]
    with serving() as (one, _), serving() as (other, _):
        there = [run(PROGRAM, *command, "--rpc", f"{one},{other}", **environment) for command in (score, generate)]
    here = [run(PROGRAM, *command, **environment) for command in (score, generate)]
    (scored, answer), (scored_here, answer_here) = [
        [json.loads(done.stdout) for done in place] for place in (there, here)
    ]
    np.testing.assert_allclose(scored["pcs"], scored_here["pcs"], rtol=0, atol=0.01)
    assert answer["tokens"] == answer_here["tokens"]
    assert any(token["p_plain"] != token["p_steered"] for token in answer["tokens"])


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
