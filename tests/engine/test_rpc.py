"""RPC servers: a model on two of them is as exact as on a GPU, and what can go wrong with one is a line."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import loopback
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc_servers import command, environment, free_endpoint, run, serving
from tiny import TinyModel

from dps_local.engine import native, rpc
from dps_local.engine.model import Model
from dps_local.engine.rpc import Endpoint
from dps_local.errors import NativeError, SettingsError

TESTS = Path(__file__).resolve().parents[1]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="built and tried on Linux only")
RELEASE = struct.pack("<BBBx", *rpc.PROTOCOL, 0)


# --- what can go wrong, with no library at all


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:50052", Endpoint("127.0.0.1", 50052)),
        (" box.lan:1 ", Endpoint("box.lan", 1)),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == text.strip()


@pytest.mark.parametrize(
    "text", ["", "box", "box:", ":50052", "box:0", "box:65536", "box:-1", "a\0b:1", "box:5²", "[::1]:50052"]
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(SettingsError, match=r"is no RPC server: write HOST:PORT, such as 192.168.1.5:50052$"):
        Endpoint.parse(text)


@given(st.from_regex(r"[^,]*:\d+") | st.text())
def test_any_text_is_an_endpoint_or_a_line(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except SettingsError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize("host", ["." * 300, "a" * 80])
def test_a_host_that_cannot_be_is_a_line(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "leads_away", lambda _: False)  # it is looked up nowhere
    with pytest.raises(NativeError, match=r"^no RPC server is at "):
        Endpoint(host, 1).check()


@pytest.mark.parametrize(
    ("host", "here"), [("127.0.0.1", True), ("127.3.2.1", True), ("localhost", True), ("10.0.0.1", False), ("x", False)]
)
def test_an_endpoint_knows_whether_it_is_here(host: str, here: bool) -> None:
    assert Endpoint(host, 1).is_here is here


@contextmanager
def answering(answer: bytes | None) -> Iterator[Endpoint]:
    """A server that reads what it is told, answers once and hangs up; None waits with the answer until the end."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(len(rpc.HELLO)) == rpc.HELLO
            if answer is None:
                ended.wait()
            else:
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Endpoint(*listener.getsockname())
    finally:
        ended.set()
        thread.join()
        listener.close()


def hello(version: bytes, capabilities: int = rpc.CAPABILITIES) -> bytes:
    return struct.pack("<Q", 4 + capabilities) + version + bytes(capabilities)


def test_a_server_of_this_protocol_passes() -> None:
    with answering(hello(RELEASE)) as endpoint:
        endpoint.check()


WRONG = {
    "another program": (b"HTTP/1.1 400 Bad Request\r\n\r\nthis is no RPC server", "is no RPC server, or a much older"),
    "one that hangs up": (b"", "is no RPC server, or a much older one$"),
    "an old one": (hello(RELEASE, 0), "is no RPC server, or a much older one$"),
    "another version": (hello(bytes((6, 1, 0, 0))), "version 6.1 of the protocol, and this build 7.0: build both from"),
    "a newer one": (hello(bytes((7, 1, 0, 0))), "speaks version 7.1 of the protocol, and this build 7.0: build both"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_server_that_answers_otherwise_is_refused(kind: str) -> None:
    answer, line = WRONG[kind]
    with answering(answer) as endpoint, pytest.raises(NativeError, match=line):
        endpoint.check()


def test_a_server_that_does_not_answer_is_refused() -> None:
    with answering(None) as endpoint, pytest.raises(NativeError, match="does not answer: it serves one program at a"):
        endpoint.check(timeout=0.1)


def test_no_server_is_refused() -> None:
    expected = r"^no RPC server is at 127\.0\.0\.1:\d+ \(.+\): start one there with `dps-local rpc-server`$"
    with pytest.raises(NativeError, match=expected):
        free_endpoint().check()


def test_a_build_without_rpc_says_how_to_build_it(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.load(), "ggml_backend_reg_by_name", lambda _: None)
    without = r'^the llama.cpp library was built without RPC: run `CMAKE_ARGS="-DGGML_RPC=on" pip install .* with RPC$'
    with pytest.raises(NativeError, match=without):
        Model(tiny_model(), rpc=["127.0.0.1:1"])
    with pytest.raises(NativeError, match=without):
        rpc.serve(Endpoint("127.0.0.1", 1), 1)


# --- two servers, of a build with RPC


@pytest.fixture
def two() -> Iterator[list[str]]:
    with serving() as (one, _), serving() as (other, _):
        yield [str(one), str(other)]


@pytest.mark.slow
@on_linux
def test_all_of_it_is_exact_on_two_servers(two: list[str]) -> None:
    of_gpu = str(TESTS / "engine" / "test_gpu.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", of_gpu, "-q", "-p", "no:cacheprovider", "-rs"],
        env=environment() | {"DPS_LOCAL_TEST_RPC": ",".join(two)},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, done.stdout


LAYERS = """
from dps_local.engine import native
from dps_local.engine.model import Model
library, lines = native.load(), []
callback = library.llama.llama_log_callback(lambda level, text, _: lines.append(text.decode()))
library.llama.llama_log_set(callback, None)
model = Model(sys.argv[1], 99, rpc=sys.argv[2:])
print([line.strip() for line in lines if "model buffer size" in line])
assert model.offloads
lines.clear()
beside = Model(sys.argv[1], 99)
assert not beside.offloads
assert not any("RPC" in line for line in lines), lines
"""


@pytest.mark.slow
@on_linux
def test_each_server_holds_layers_and_of_no_other_model(two: list[str], tiny_model: TinyModel) -> None:
    done = run(LAYERS, tiny_model(), *two)
    assert done.returncode == 0, done.stderr
    for server in two:
        assert f"[{server}] model buffer size = " in done.stdout


LOST = """
import signal
from dps_local.engine import rpc
from dps_local.engine.context import Context, Run
from dps_local.engine.model import Model
rpc.end_with(lambda line: print(f"error: {line}", flush=True))
model = Model(sys.argv[1], 99, rpc=[sys.argv[2]])
context = Context(model, 256)
context.decode([Run(0, 0, [1, 2, 3], 1)])
os.kill(int(sys.argv[3]), signal.SIGKILL)
context.decode([Run(0, 3, [4], 1)])
print("went on")
"""


@pytest.mark.slow
@on_linux
def test_a_server_that_is_lost_ends_the_program_with_one_line(tiny_model: TinyModel) -> None:
    with serving() as (endpoint, process):
        done = run(LOST, tiny_model(), endpoint, process.pid)
    line = "error: an RPC server has ended, or does not answer as it should: start it anew, and this program\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, line, "")


UNLOADED = """
from dps_local.engine.model import Model
for _ in range(2):  # both at once, as the second stream's
    with Model(sys.argv[1], 99, rpc=[sys.argv[2]]), Model(sys.argv[1], 99, rpc=[sys.argv[2]]):
        pass
print("closed", flush=True)
sys.stdin.readline()
Model(sys.argv[1], 99, rpc=[sys.argv[2]])
"""


@pytest.mark.slow
@on_linux
def test_a_server_is_tried_again_for_the_next_model(tiny_model: TinyModel) -> None:
    with serving() as (endpoint, server):
        arguments = command(UNLOADED, tiny_model(), endpoint)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(arguments, env=environment(), text=True, **pipes) as process:  # type: ignore[call-overload]
            assert process.stdout.readline() == "closed\n"
            server.kill()
            server.wait()
            _, said = process.communicate("\n", timeout=120)
    assert said.splitlines()[-1].startswith(f"dps_local.errors.NativeError: no RPC server is at {endpoint} (")
