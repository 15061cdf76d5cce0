"""llama.cpp's RPC back end: servers, on this machine or on others, that hold layers of a model and compute them.

ggml ends the process where a server does not answer as it should, so that each is tried here before ggml gets it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Self
from weakref import WeakValueDictionary

from dps_local.engine import native
from dps_local.errors import NativeError, SettingsError
from dps_local.system.loopback import is_loopback

HOW_TO_BUILD = (
    'run `CMAKE_ARGS="-DGGML_RPC=on" pip install --force-reinstall --no-deps .` in the dps-local source folder to '
    "build it with RPC"
)
HOST_AND_PORT = re.compile(r"([!-9;-~]+):([0-9]{1,5})")  # ggml knows no IPv6, which has more colons
TIMEOUT = 10.0  # seconds for a server to answer
PROTOCOL = 7, 0  # RPC_PROTO_MAJOR_VERSION and the newest RPC_PROTO_MINOR_VERSION that ggml-rpc.h speaks
# | RPC_CMD_HELLO (1 byte) | size (8 bytes) | what the connection could do beside TCP: nothing |, and its answer:
# | size (8 bytes) | major, minor, patch, padding (1 byte each) | the same |
CAPABILITIES = 24
HELLO = struct.pack(f"<BQ{CAPABILITIES}x", 14, CAPABILITIES)
ANSWER = struct.Struct(f"<QBBBx{CAPABILITIES}x")


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens: a name or an IPv4 address, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        match = HOST_AND_PORT.fullmatch(text.strip())
        if not match or not 0 < int(match[2]) < 1 << 16:
            raise SettingsError(f"{text.strip()!r} is no RPC server: write HOST:PORT, such as 192.168.1.5:50052")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_here(self) -> bool:
        return is_loopback(self.host)

    def check(self, timeout: float = TIMEOUT) -> None:
        """Raise NativeError unless a server answers that speaks this build's protocol."""
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        with connection, connection.makefile("rwb") as stream:
            try:
                connection.connect((self.host, self.port))
            except (OSError, ValueError) as exc:
                raise NativeError(
                    f"no RPC server is at {self} ({_reason(exc)}): start one there with `dps-local rpc-server`"
                ) from exc
            try:
                stream.write(HELLO)
                stream.flush()
                answer = stream.read(ANSWER.size)
            except TimeoutError as exc:
                raise NativeError(
                    f"the RPC server {self} does not answer: it serves one program at a time, so another may have it"
                ) from exc
            except OSError:
                answer = b""  # it hung up
        size, major, minor, _ = ANSWER.unpack(answer) if len(answer) == ANSWER.size else (0,) * 4
        if size != ANSWER.size - 8:
            raise NativeError(f"what listens at {self} is no RPC server, or a much older one")
        if major != PROTOCOL[0] or minor > PROTOCOL[1]:
            ours = ".".join(map(str, PROTOCOL))
            raise NativeError(
                f"the RPC server {self} speaks version {major}.{minor} of the protocol, and this build {ours}: "
                "build both from the same source"
            )


class Server:
    """A server that answered, and its devices (ggml_backend_dev_t). It serves this process while a model uses it."""

    def __init__(self, endpoint: Endpoint) -> None:
        # ggml_backend_reg_t ggml_backend_rpc_add_server(const char * endpoint);
        add = _function("ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)
        endpoint.check()
        if not (registry := add(str(endpoint).encode())):
            raise NativeError(f"the RPC server {endpoint} has no device to compute on")
        # size_t ggml_backend_reg_dev_count(ggml_backend_reg_t reg);
        # ggml_backend_dev_t ggml_backend_reg_dev_get(ggml_backend_reg_t reg, size_t index);
        declare = functools.partial(native.load().declare, native.load().ggml)
        count = declare("ggml_backend_reg_dev_count", ctypes.c_size_t, ctypes.c_void_p)
        get = declare("ggml_backend_reg_dev_get", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        self.devices: list[int] = [get(registry, i) for i in range(count(registry))]


_kept: list[Any] = []
_in_use: WeakValueDictionary[Endpoint, Server] = WeakValueDictionary()


def server_at(endpoint: Endpoint) -> Server:
    """Return a server, tried where no model of this process is connected to it: it would wait for itself."""
    if (server := _in_use.get(endpoint)) is None:
        _in_use[endpoint] = server = Server(endpoint)
    return server


def _reason(error: Exception) -> object:
    return getattr(error, "strerror", None) or error


def _function(name: str, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    library = native.load()
    if not (registry := library.ggml_backend_reg_by_name(b"RPC")):
        raise NativeError(f"the llama.cpp library was built without RPC: {HOW_TO_BUILD}")
    return ctypes.CFUNCTYPE(restype, *argtypes)(library.ggml_backend_reg_get_proc_address(registry, name.encode()))


def end_with(say: Callable[[str], None]) -> None:
    """Let the process end with one line where a server fails it; ggml ends it anyway, with a trace of its calls."""
    library = native.load()

    def ended(message: bytes) -> None:
        if b"ggml-rpc.cpp" in message:
            say("an RPC server has ended, or does not answer as it should: start it anew, and this program")
            os._exit(1)
        os.write(2, message + b"\n")

    # typedef void (*ggml_abort_callback_t)(const char * error_message);
    _kept[:] = [ctypes.CFUNCTYPE(None, ctypes.c_char_p)(ended)]  # a collected callback crashes
    # ggml_abort_callback_t ggml_set_abort_callback(ggml_abort_callback_t callback);
    library.declare(library.ggml, "ggml_set_abort_callback", ctypes.c_void_p, ctypes.c_void_p)(_kept[0])


# --- the server


def serve(endpoint: Endpoint, n_threads: int) -> NoReturn:
    """Let others compute on this machine's GPUs, or else its CPU, until the process ends; raises NativeError."""
    # void ggml_backend_rpc_start_server(const char * endpoint, const char * cache_dir, size_t n_threads,
    #                                    size_t n_devices, ggml_backend_dev_t * devices);
    char_p, size_t = ctypes.c_char_p, ctypes.c_size_t
    start = _function("ggml_backend_rpc_start_server", None, char_p, char_p, size_t, size_t, ctypes.c_void_p)
    try:
        address = socket.gethostbyname(endpoint.host)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:  # ggml does not say why it cannot
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((address, endpoint.port))
    except (OSError, ValueError) as exc:
        raise NativeError(f"cannot listen at {endpoint} ({_reason(exc)})") from exc
    found = own_devices()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # ggml prints each connection
    start(f"{address}:{endpoint.port}".encode(), None, n_threads, len(found), (ctypes.c_void_p * len(found))(*found))
    raise NativeError(f"the RPC server at {endpoint} has ended")


def own_devices() -> list[int]:
    """Return the devices that a server gives: this machine's GPUs, or else its CPU."""
    library = native.load()
    return library.gpus() or library.devices(native.CPU)
