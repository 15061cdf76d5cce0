"""The self-test passes here, and whatever a library does in its child process becomes one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import TinyModel

from dps_local.engine import native, self_test
from dps_local.engine.native import PATCH_VERSION
from dps_local.engine.self_test import Report
from dps_local.engine.self_test_child import has_own_cxx
from dps_local.errors import NativeError, Remedy, SelfTestError
from dps_local.system import cpu

REMEDY = r"run `CMAKE_ARGS=\"-DGGML_NATIVE=OFF[^\"]*\" pip install --force-reinstall --no-deps \.` in the dps-local "
REMEDY += "source folder to build it without special CPU features"
GO_ON = "; DPS_LOCAL_SELF_TEST=off skips this check"
NOTICE = "testing once whether the engine works on this machine (some seconds)"

KILLED = """
import os, signal
from dps_local.engine.context import Context
Context.decode = lambda self, runs: os.kill(os.getpid(), signal.SIGILL)
"""

InChild = Callable[[str], None]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DPS_LOCAL_SELF_TEST")


@pytest.fixture
def in_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InChild:
    """`in_child(code)` has the test's child process run code first, as Python does with a module of this name."""
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # and children of programs that the test starts

    def write(code: str) -> None:
        indented = code.replace("\n", "\n    ")
        of_child = f"import sys\nif 'dps_local.engine.self_test_child' in sys.orig_argv:\n    {indented}\n"
        (tmp_path / "site" / "sitecustomize.py").write_text(of_child)

    return write


# --- what the child does


def test_the_libraries_pass_here() -> None:
    report = self_test.run()
    assert report.failure is None
    library = native.load()
    assert report.engine == {
        "libllama": str(library.library("llama")),
        "llama_cpp_python": library.version,
        "backends": library.backends(),
        "features": library.features(),
    }


def test_a_child_that_dies_of_a_signal_is_one_line(in_child: InChild) -> None:
    in_child(KILLED)
    report = self_test.run()
    died = r"^llama.cpp does not work on this machine \('plain decoding' on the CPU: SIGILL, illegal instruction\): "
    assert re.search(f"{died}{REMEDY}$", report.failure or "")
    assert report.engine["features"] == native.load().features()  # known from before


def test_a_child_that_dies_before_it_says_anything_is_one_line(in_child: InChild) -> None:
    in_child("import os\nos.abort()")
    report = self_test.run()
    assert re.search(rf"\(loading the libraries: SIGABRT, [^)]*\): {REMEDY}$", report.failure or "")
    assert report.engine == {}


def test_what_a_library_says_before_it_aborts_is_shown(in_child: InChild) -> None:
    said = "ggml.c:1: GGML_ASSERT(a == b) failed"
    in_child(f"import os, sys\nprint('more')\nprint({said!r}, flush=True)\nos.abort()")
    assert f", {said})" in (self_test.run().failure or "")


WRONG = {
    "a scale that does nothing": (
        r"'a muted head' on the CPU: off by [0-9.]+ of the logits' deviation \(0.001 is allowed\)",
        "from dps_local.engine.context import Context\nContext.set_head_scales = lambda *_: None",
    ),
    "logits that are not finite": (
        r"'plain decoding' on the CPU: off by nan of the logits' deviation \(0.25 is allowed\)",
        "from dps_local.engine.context import Context\nold = Context.decode\n"
        "Context.decode = lambda *given: old(*given) * float('nan')",
    ),
    "one type of weights": (
        r"'plain decoding' on the CPU: off by [0-9.]+ of the logits' deviation \(0.25 is allowed\)",
        "import gguf\nold = gguf.quants.dequantize\n"
        "gguf.quants.dequantize = lambda data, kind: old(data, kind) * (kind.name != 'Q4_1')",
    ),
    "a scale of one that changes something": (
        r"'a scale of one' on the CPU: off by [0-9.e-]+ of the logits' deviation \(0 is allowed\)",
        "from dps_local.engine.context import Context\nold = Context.set_head_scales\n"
        "Context.set_head_scales = lambda self, seq, scales: "
        "old(self, seq, scales if scales is None or (scales != 1).any() else scales * 0.9999)",
    ),
    "logits of some rows": (
        r"'a batch of tokens' on the CPU: off by [0-9.e-]+ of the logits' deviation \(0 is allowed\)",
        "from dps_local.engine.context import Context\nold = Context.decode_rows\n"
        "Context.decode_rows = lambda *given: old(*given) * 1.000001",
    ),
    "tokens": (
        r"'splitting a text into tokens' on the CPU: other tokens than those of the text",
        "from dps_local.engine.model import Model\nModel.tokenize = lambda *_, **__: [1]",
    ),
    "a file without weights": (
        r"'a file without weights' on the CPU: it is taken for a model",
        "from dps_local.engine.model import Model\nold = Model.__init__\n"
        "Model.__init__ = lambda self, path, *given: None if path.stem == 'broken' else old(self, path, *given)",
    ),
    "a batch": (
        r"'a batch of tokens' on the CPU: off by [0-9.e-]+ of the logits' deviation \(0 is allowed\)",
        "from dps_local.engine.context import Context\nold = Context.decode\n"
        "batch = lambda self, runs: self.batch_invariant and len(runs[0].tokens) == 4\n"
        "Context.decode = lambda self, runs: old(self, runs) * (1.000001 if batch(self, runs) else 1)",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_numbers_are_one_line(in_child: InChild, kind: str) -> None:
    expected, code = WRONG[kind]
    in_child(code)
    assert re.search(rf"\({expected}\): {REMEDY}{GO_ON}$", self_test.run().failure or "")


MATCHES = """
#include <regex>
extern "C" int matches(const char * text) { return std::regex_match(text, std::regex("a+")); }
"""
with_compiler = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("g++"), reason="needs g++ on Linux: apt install g++"
)


@pytest.fixture(scope="module")
def own_cxx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that brings libstdc++ in itself, as a toolchain with a static one alone makes them."""
    folder = tmp_path_factory.mktemp("own-cxx")
    (folder / "matches.cpp").write_text(MATCHES)
    options = ["-shared", "-fPIC", "-static-libstdc++", "-static-libgcc", "-o", "libllama.so"]
    subprocess.run(["g++", *options, "matches.cpp"], cwd=folder, check=True)
    return folder / "libllama.so"


@with_compiler
def test_two_runtimes_of_cxx_that_get_confused_are_found(in_child: InChild, own_cxx: Path) -> None:
    in_child(f"import ctypes\nassert ctypes.CDLL({str(own_cxx)!r}).matches(b'aa')")  # before libllama
    expected = r"\('loading a model' on the CPU: llama.cpp cannot load \S+/model.gguf \(std::bad_cast\)\): "
    assert re.search(expected, self_test.run().failure or "")


@with_compiler
def test_a_library_with_a_runtime_of_its_own_is_known(own_cxx: Path) -> None:
    library: Any = SimpleNamespace(lib=own_cxx.parent, library=lambda _: own_cxx)
    assert has_own_cxx(library)
    assert not has_own_cxx(native.load())


def test_a_runtime_of_its_own_is_the_first_to_blame() -> None:
    lines: list[dict[str, Any]] = [{"own_cxx": True}, {"step": "loading a model", "device": "CPU"}]
    failure = str(self_test.failure_of(lines, -signal.SIGSEGV, "", 9))
    assert failure.startswith("llama.cpp does not work on this machine ('loading a model' on the CPU: SIGSEGV, ")
    assert "CMAKE_SHARED_LINKER_FLAGS=-Wl,--no-as-needed,-l:libstdc++.so.6" in failure
    assert self_test.failure_of([*lines, {"passed": True}], 0, "", 9) is None  # what others do not see does no harm


def test_a_child_that_hangs_is_stopped(in_child: InChild) -> None:
    in_child("import time\ntime.sleep(60)")
    start = time.monotonic()
    failure = self_test.run(timeout=1).failure
    assert re.search(rf"\(loading the libraries: no answer in 1 s\): {REMEDY}{GO_ON}$", failure or "")
    assert time.monotonic() - start < 30


def test_a_library_that_does_not_match_says_so_itself(in_child: InChild) -> None:
    in_child("from dps_local.engine import native\nnative.PATCH_VERSION = 98")
    failure = self_test.run().failure
    assert failure == f"the llama.cpp library has patch {PATCH_VERSION}, expected 98: {native.HOW_TO_BUILD}"


@pytest.mark.parametrize("line", ["[]", "5", '{"step": "decode"}', '{"engine": 5}', "[" * 100_000, "{"])
def test_a_report_that_is_damaged_is_a_failure(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def child(folder: Path, *_: object) -> int:
        (folder / "output").touch()
        (folder / "report.jsonl").write_text(f"{line}\n")
        return 1

    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path))
    monkeypatch.setattr(self_test, "run_child", child)
    report = self_test.run(offload=False)
    assert report.engine == {}
    assert (report.failure or "").startswith("llama.cpp does not work on this machine (")


def test_a_failure_on_a_gpu_leaves_the_cpu() -> None:
    lines: list[dict[str, Any]] = [
        {"engine": {}},
        {"step": "plain decoding", "device": "CPU"},
        {"step": "a muted head", "device": "GPU"},
    ]
    failure = self_test.failure_of(lines, -signal.SIGSEGV, "", 9)
    assert failure
    assert str(failure) == (
        "llama.cpp does not work on this machine ('a muted head' on the GPU: SIGSEGV, segmentation fault)"
    )
    assert failure.remedy is Remedy.NO_GPU
    wrong = self_test.failure_of([*lines, {"failed": "another answer"}], 1, "", 9)
    assert wrong
    assert wrong.remedy is Remedy.NO_GPU_OR_NO_TEST
    assert self_test.failure_of([*lines, {"passed": True}], -signal.SIGSEGV, "", 9) is None  # a driver's end


@pytest.mark.parametrize(
    ("code", "expected"),
    [(-11, "SIGSEGV, segmentation fault"), (3, "exit code 3"), (0xC000001D, "illegal instruction")],
)
def test_an_end_has_a_name(code: int, expected: str) -> None:
    assert self_test.end_of(code) == expected


def test_what_the_processor_lacks_is_left_out_of_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags\t: fpu sse4_2 avx f16c\n")
    options = "-DGGML_NATIVE=OFF -DGGML_AVX2=OFF -DGGML_BMI2=OFF -DGGML_FMA=OFF"
    assert f'`CMAKE_ARGS="{options}" pip install' in self_test._rebuild()


# --- once for each build and processor


class Child:
    """Takes the place of the child process: `ends` is its exit code, 0 passes; counts how often it ran."""

    def __init__(self) -> None:
        self.ends, self.runs, self.notices = 0, 0, 0

    def __call__(self, folder: Path, devices: list[str], timeout: float) -> int:
        del devices, timeout
        self.runs += 1
        (folder / "report.jsonl").write_text("" if self.ends else '{"passed": true}\n')
        (folder / "output").touch()
        return self.ends

    def check(self, offload: bool = True) -> int:
        """Return how often the test has run, after one more start."""

        def notice(text: str) -> None:
            assert text == NOTICE
            self.notices += 1

        self_test.check(notice, offload=offload)
        return self.runs


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Child:
    fake = Child()
    monkeypatch.setattr(self_test, "run_child", fake)
    return fake


@pytest.fixture
def lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "_vendor" / "llama_cpp" / "lib"
    folder.mkdir(parents=True)
    (folder / "build.json").write_text("{}")
    (folder / "libllama.so").write_bytes(b"machine code")
    monkeypatch.setattr(native, "vendor_dir", lambda: tmp_path / "_vendor")
    return folder


def test_it_runs_once(child: Child) -> None:
    assert [child.check() for _ in range(3)] == [1, 1, 1]
    assert child.notices == 1


def test_a_library_that_changed_is_tested_anew(child: Child, lib: Path) -> None:
    library = lib / "libllama.so"
    assert child.check() == 1
    before = library.stat()
    library.write_bytes(b"other machine code")
    os.utime(library, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert child.check() == 2
    library.write_bytes(b"machine code")
    os.utime(library, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert child.check() == 3
    (lib / "libggml-cpu-haswell.so").touch()
    assert child.check() == 4
    os.utime(library, ns=(before.st_atime_ns, before.st_mtime_ns))
    (lib / "libggml-cpu-haswell.so").unlink()
    assert child.check() == 4  # the first one again


def test_another_processor_is_tested_anew(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu, "CPUINFO", cpuinfo)
    text = "processor\t: 0\nmodel name\t: Xeon\ncpu MHz\t\t: 2000.0\nflags\t\t: fpu avx avx2\n\nflags\t: of the next\n"
    runs = []
    for changed in (text, text.replace("2000", "2100"), text.replace("next", "other"), text.replace(" avx2", "")):
        cpuinfo.write_text(changed)
        runs.append(child.check())
    cpuinfo.write_text(text.replace("Xeon", "EPYC"))
    assert [*runs, child.check()] == [1, 1, 1, 2, 3]
    cpuinfo.unlink()  # another system
    assert [child.check(), child.check()] == [4, 4]


def test_a_failure_is_looked_for_again(child: Child) -> None:
    child.ends = -4
    for runs in (1, 2):
        with pytest.raises(SelfTestError, match="SIGILL, illegal instruction"):
            child.check()
        assert child.runs == runs
    child.ends = 0
    assert [child.check(), child.check()] == [3, 3]


def test_a_failure_that_doctor_finds_is_looked_for_at_the_next_start(child: Child) -> None:
    assert child.check() == 1
    child.ends = -4
    assert self_test.run().failure
    child.ends = 0
    assert child.check() == 3


def test_what_passed_with_the_gpu_passes_without_it_and_not_the_other_way_round(child: Child) -> None:
    assert [child.check(offload=False), child.check(offload=False), child.check()] == [1, 1, 2]
    assert [child.check(), child.check(offload=False)] == [2, 2]


def test_no_gpu_is_tested_where_none_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    for offload in (True, False):
        self_test.run(offload=offload)
    assert [command[5:] for command in commands] == [["CPU", "GPU"], ["CPU"]]


def test_a_cache_that_cannot_be_written_to_does_not_matter(
    child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "file"))
    assert [child.check(), child.check()] == [1, 2]


def test_it_can_be_switched_off(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPS_LOCAL_SELF_TEST", "off")
    assert child.check() == 0


def test_without_a_library_that_is_what_is_said(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dps_local.__path__", [str(tmp_path)])
    with pytest.raises(NativeError, match="library is missing"):
        child.check()
    assert self_test.run() == Report({}, None)  # what the child found; that it cannot be kept does not matter


def test_a_start_after_it_costs_next_to_nothing(child: Child) -> None:
    child.check()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        child.check()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


# --- the commands


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "dps_local", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_package_runs_as_a_module() -> None:
    assert "Usage: dps-local [OPTIONS] COMMAND" in program("--help").stdout


def test_the_first_command_tests_the_libraries_and_the_next_one_does_not(tiny_model: TinyModel) -> None:
    command = ("generate", "-m", tiny_model("llama"), "-n", "2", "--temp", "0", "hello", "--json")
    first, second = program(*command), program(*command)
    assert first.returncode == second.returncode == 0
    assert json.loads(first.stdout)["text"] == json.loads(second.stdout)["text"]
    assert first.stderr == f"{NOTICE}\n{second.stderr}"


def test_a_library_that_crashes_is_one_line_of_the_first_command(in_child: InChild, tiny_model: TinyModel) -> None:
    in_child(KILLED)
    ended = program("generate", "-m", tiny_model("llama"), "-n", "2", "hello")
    assert (ended.returncode, ended.stdout) == (1, "")
    notice, error = ended.stderr.splitlines()
    assert notice == NOTICE
    assert re.search(f"^error: llama.cpp does not .* SIGILL, illegal instruction.*{REMEDY}$", error)


@pytest.mark.parametrize("command", [("bench", "scoring", "-m"), ("inspect",), ("bake", "-o", "out.gguf", "any.gguf")])
def test_every_command_that_loads_a_file_is_guarded(
    in_child: InChild, tiny_model: TinyModel, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "any.gguf").touch()
    in_child(KILLED)
    ended = program(*command, tiny_model("llama"))
    assert ended.returncode == 1
    assert "SIGILL" in ended.stderr.splitlines()[-1]


def test_doctor_says_ok_and_which_features_are_used() -> None:
    ended = program("doctor", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    said = json.loads(ended.stdout)
    assert said["self_test"] == "ok"
    assert said["features"] == native.load().features()
    assert said["libllama"] == str(native.load().library("llama"))


def test_doctor_says_what_failed_and_ends_with_1(in_child: InChild) -> None:
    in_child(KILLED)
    ended = program("doctor", "--json")
    assert ended.returncode == 1
    said = json.loads(ended.stdout)
    assert re.search(rf"SIGILL, illegal instruction\): {REMEDY}$", said["self_test"])
    assert ended.stderr == f"error: {said['self_test']}\n"
    shown = program("doctor")
    assert shown.returncode == 1
    assert "self_test" in shown.stdout
    assert shown.stderr == ended.stderr


def test_doctor_survives_a_library_that_dies_as_it_is_loaded(in_child: InChild) -> None:
    in_child("import os\nos.abort()")
    ended = program("doctor", "--json")
    assert ended.returncode == 1
    said = json.loads(ended.stdout)
    assert (said["libllama"], said["backends"], said["features"]) == (None, [], {})
    assert "loading the libraries: SIGABRT" in said["self_test"]
