"""The self-test: a child process decodes a tiny model, so that a library this machine cannot run is found out in peace.

The command line runs it before the first model after an install, and keeps that it passed; `doctor` runs it always.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dps_local
from dps_local.engine import native
from dps_local.errors import DpsError, SelfTestError
from dps_local.system import cache
from dps_local.system.files import atomic_write, cache_folder

TIMEOUT = 120.0  # seconds; it takes one or two, and a GPU's driver may compile its programs first
FOLDER = "self-tests"  # of the cache
SKIP = "DPS_LOCAL_SELF_TEST"
GO_ON = f"{SKIP}=off skips this check"
CPUINFO = Path("/proc/cpuinfo")
# what tells two CPUs apart; other lines of cpuinfo change from one moment to the next
CPU_KEYS = {"vendor_id", "cpu family", "model", "model name", "stepping", "flags"}
CPU_KEYS |= {"CPU implementer", "CPU variant", "CPU part", "CPU revision", "Features", "isa"}
# what ggml's GGML_NATIVE=OFF leaves on, and how Linux calls it
X86_FEATURES = {"SSE42": "sse4_2", "AVX": "avx", "AVX2": "avx2", "BMI2": "bmi2", "FMA": "fma", "F16C": "f16c"}


@dataclass(frozen=True)
class Report:
    """engine: what the child said of the libraries before the test. failure: None, or what failed and what to do."""

    engine: dict[str, Any]
    failure: str | None


def check(notice: Callable[[str], None], *, offload: bool) -> None:
    """Raise SelfTestError where the libraries do not work on this machine; offload: the GPU is used too.

    Runs the test once for these libraries and this CPU; a failure is not kept, so it is looked for again.
    """
    if os.environ.get(SKIP) == "off" or _mark(offload).exists():
        return
    notice("testing once whether the engine works on this machine (some seconds)")
    if failure := run(offload=offload).failure:
        raise SelfTestError(failure)


def run(*, offload: bool = True, timeout: float = TIMEOUT) -> Report:
    """Run the test in a child process, and keep whether it passed for `check`."""
    with tempfile.TemporaryDirectory(prefix="dps-local-") as name:
        folder = Path(name)
        code = _run_child(folder, ["CPU", "GPU"] if offload else ["CPU"], timeout)
        lines = _lines(folder / "report.jsonl")
        said = (folder / "output").read_text(errors="replace").strip().rpartition("\n")[2]
    failure = _failure(lines, code, said, timeout)
    with contextlib.suppress(DpsError):  # no library, or a cache that cannot be written to: the next start tests anew
        cache_folder(FOLDER)
        for mark in {_mark(offload), _mark(False)}:
            if failure:
                mark.unlink(missing_ok=True)
            else:
                with atomic_write(mark) as file:
                    file.write(b"passed\n")
    engine = lines[0].get("engine") if lines else None
    return Report(engine if isinstance(engine, dict) else {}, failure)


# --- what was tested


def _mark(offload: bool) -> Path:
    """Return the file that is there once these libraries have passed on this CPU.

    A library is known by its path, size and time: to read all of them at each start would cost more than the test.
    """
    lib = native.vendor_dir() / "llama_cpp" / "lib"
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(lib.iterdir())]
    key = [dps_local.__version__, str(lib), files, _cpu(), offload]
    return cache.root() / FOLDER / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _cpu() -> dict[str, str]:
    """Return what is known of the first processor, its features included where the system lists them."""
    found = {"machine": platform.machine()}
    if not CPUINFO.exists():
        return found | {"processor": platform.processor()}
    with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = (part.strip() for part in line.partition(":"))
            if not key:  # of the next processors, which cost time on a large machine
                break
            if key in CPU_KEYS:
                found[key] = value
    return found


# --- the child


def _run_child(folder: Path, devices: list[str], timeout: float) -> int | None:
    """Return the child's exit code, below 0 for a signal; None where it was stopped after `timeout` seconds."""
    here = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)  # the same package, wherever it lies
    # threads that spin while they wait make a second of this ten on a busy machine; a backtrace may start a debugger
    environment = {"OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1"} | os.environ | {"PYTHONPATH": here}
    command = [sys.executable, "-P", "-m", "dps_local.engine.self_test_child", str(folder), *devices]
    with (folder / "output").open("wb") as output:
        try:
            # in its folder: so is a core file, and it goes with it
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=folder,
                timeout=timeout,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return None


def _lines(report: Path) -> list[dict[str, Any]]:
    """Return the lines of the child's report; the last one may have been cut off."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, RecursionError):
        for line in report.read_text().splitlines():
            if isinstance(said := json.loads(line), dict):
                found.append(said)
    return found


# --- what it means


def _failure(lines: list[dict[str, Any]], code: int | None, said: str, timeout: float) -> str | None:
    """Return None where the test passed, else what failed and what to do, in a line."""
    last = lines[-1] if lines else {}
    if "passed" in last:  # whatever a driver does at the end of a process
        return None
    if "error" in last:  # says itself what to do
        return str(last["error"])
    step: dict[str, Any] = next((line for line in reversed(lines) if {"step", "device"} <= line.keys()), {})
    where = f"'{step['step']}' on the {step['device']}" if step else "loading the libraries"
    remedy = "--n-gpu-layers 0 leaves the GPU out" if step.get("device") == "GPU" else _rebuild()
    if "failed" in last:
        what, remedy = str(last["failed"]), f"{remedy}; {GO_ON}"
    elif code is None:
        what, remedy = f"no answer in {timeout:g} s", f"{remedy}; {GO_ON}"
    else:
        what = _death(code) + (f", {said}" if said else "")
    return f"llama.cpp does not work on this machine ({where}: {what}): {remedy}"


def _death(code: int) -> str:
    """Return what ended a process, e.g. SIGILL, illegal instruction."""
    if code == 0xC000001D:  # Windows has no signals: STATUS_ILLEGAL_INSTRUCTION
        return "illegal instruction"
    if code >= 0:
        return f"exit code {code}"
    name = next((number.name for number in signal.Signals if number == -code), f"signal {-code}")
    described = (signal.strsignal(-code) or "unknown").partition(":")[0]  # macOS: Illegal instruction: 4
    return f"{name}, {described.lower()}"


def _rebuild() -> str:
    """Return how to build the libraries without what this CPU lacks, or what a compiler gets wrong on it."""
    flags = _cpu().get("flags", "").split()
    lacking = [name for name, flag in X86_FEATURES.items() if flags and flag not in flags]
    options = " ".join(["-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=OFF" for name in lacking)])
    command = f'`CMAKE_ARGS="{options}" pip install --force-reinstall --no-deps .`'
    return f"run {command} in the dps-local source folder to build it without special CPU features"
