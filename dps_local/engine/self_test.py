"""The self-test: a child process decodes a tiny model, as a library that this machine cannot run ends its process.

The command line runs it before the first model after an install, and keeps that it passed; `doctor` runs it always.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
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
from dps_local.errors import DpsError, Remedy, SelfTestError
from dps_local.system import cache, cpu
from dps_local.system.files import atomic_write, cache_folder

TIMEOUT = 120.0  # seconds; it takes one or two, and a GPU's driver may compile its programs first
FOLDER = "self-tests"  # of the cache
SKIP = "DPS_LOCAL_SELF_TEST"
GO_ON = f"{SKIP}=off skips this check"
RELINK = (
    'run `CMAKE_ARGS="-DCMAKE_SHARED_LINKER_FLAGS=-Wl,--no-as-needed,-l:libstdc++.so.6" pip install --force-reinstall '
    "--no-deps .` in the dps-local source folder, with other CMAKE_ARGS of yours beside it: the libraries have a "
    "libstdc++ linked into them, which does not go together with that of other packages"
)
# what ggml's GGML_NATIVE=OFF leaves on, and how Linux calls it
X86_FEATURES = {"SSE42": "sse4_2", "AVX": "avx", "AVX2": "avx2", "BMI2": "bmi2", "FMA": "fma", "F16C": "f16c"}


@dataclass(frozen=True)
class Report:
    """engine: what the child said of the libraries before the test. failure: None, or what failed and what to do.

    remedy: what helps, where `failure` does not tell.
    """

    engine: dict[str, Any]
    failure: str | None
    remedy: Remedy | None = None


def check(notice: Callable[[str], None], *, offload: bool) -> None:
    """Raise SelfTestError where the libraries do not work on this machine; offload: the GPU is used too.

    Runs the test once for these libraries and this CPU; a failure is not kept, so it is looked for again.
    """
    if os.environ.get(SKIP) == "off" or _mark(offload).exists():
        return
    notice("testing once whether the engine works on this machine (some seconds)")
    if (report := run(offload=offload)).failure:
        raise SelfTestError(report.failure, report.remedy)


def run(*, offload: bool = True, timeout: float = TIMEOUT) -> Report:
    """Run the test in a child process, and keep whether it passed for `check`."""
    with tempfile.TemporaryDirectory(prefix="dps-local-") as name:
        folder = Path(name)
        code = run_child(folder, ["CPU", "GPU"] if offload else ["CPU"], timeout)
        lines = _lines(folder / "report.jsonl")
        said = (folder / "output").read_text(errors="replace").strip().rpartition("\n")[2]
    failure = failure_of(lines, code, said, timeout)
    with contextlib.suppress(DpsError):  # no library, or a cache that cannot be written to: the next start tests anew
        cache_folder(FOLDER)
        for mark in {_mark(offload), _mark(False)}:
            if failure:
                mark.unlink(missing_ok=True)
            else:
                with atomic_write(mark) as file:
                    file.write(b"passed\n")
    engine = lines[0].get("engine") if lines else None
    engine = engine if isinstance(engine, dict) else {}
    return Report(engine, str(failure), failure.remedy) if failure else Report(engine, None)


# --- what was tested


def _mark(offload: bool) -> Path:
    """Return the file that is there once these libraries have passed on this CPU.

    A library is known by its path, size and time: to read all of them at each start would cost more than the test.
    """
    lib = native.vendor_dir() / "llama_cpp" / "lib"
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(lib.iterdir())]
    key = [dps_local.__version__, str(lib), files, cpu.describe(), offload]
    return cache.root() / FOLDER / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


# --- the child


def run_child(folder: Path, devices: list[str], timeout: float) -> int | None:
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
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, RecursionError):
        for line in report.read_text().splitlines():
            if isinstance(said := json.loads(line), dict):
                lines.append(said)
    return lines


# --- what it means


def failure_of(lines: list[dict[str, Any]], code: int | None, said: str, timeout: float) -> SelfTestError | None:
    """Return None where the test passed, else what failed and what to do."""
    last = lines[-1] if lines else {}
    if "passed" in last:  # whatever a driver does at the end of a process
        return None
    if "error" in last:  # says itself what to do
        return SelfTestError(str(last["error"]))
    step: dict[str, Any] = next((line for line in reversed(lines) if {"step", "device"} <= line.keys()), {})
    where = f"'{step['step']}' on the {step['device']}" if step else "loading the libraries"
    skippable = "failed" in last or code is None
    if "failed" in last:
        what = str(last["failed"])
    elif code is None:
        what = f"no answer in {timeout:g} s"
    else:
        what = end_of(code) + (f", {said}" if said else "")
    message = f"llama.cpp does not work on this machine ({where}: {what})"
    if any("own_cxx" in line for line in lines):
        return SelfTestError(f"{message}: {RELINK}")
    if step.get("device") == "GPU":
        return SelfTestError(message, Remedy.NO_GPU_OR_NO_TEST if skippable else Remedy.NO_GPU)
    return SelfTestError(f"{message}: {_rebuild()}" + (f"; {GO_ON}" if skippable else ""))


def end_of(code: int) -> str:
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
    flags = cpu.describe().get("flags", "").split()
    lacking = [name for name, flag in X86_FEATURES.items() if flags and flag not in flags]
    options = " ".join(["-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=OFF" for name in lacking)])
    command = f'`CMAKE_ARGS="{options}" pip install --force-reinstall --no-deps .`'
    return f"run {command} in the dps-local source folder to build it without special CPU features"
