"""The command itself: a processor that numpy would die on is refused in one line."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from dps_local import __main__ as command
from dps_local.cli import app as cli

FLAGS = {0: "pni", 9: "ssse3", 12: "fma", 13: "cx16", 17: "pcid", 18: "dca", 20: "sse4_2", 22: "movbe", 28: "avx"}


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc", reason="asks the processor through glibc"
)
def test_the_processor_says_what_linux_says_of_it() -> None:
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    features = command.cpuid()
    assert features is not None
    assert {name for bit, name in FLAGS.items() if features >> bit & 1} == set(flags) & set(FLAGS.values())


@pytest.mark.parametrize(("features", "numpy"), [(None, "2.4.6"), (1 << 20, "2.4.6"), (~(1 << 20), "2.3.5")])
def test_the_program_runs_where_numpy_does(monkeypatch: pytest.MonkeyPatch, features: int | None, numpy: str) -> None:
    ran = []
    monkeypatch.setattr(command, "cpuid", lambda: features)
    monkeypatch.setattr(command, "version", lambda _: numpy)
    monkeypatch.setattr(cli, "main", lambda: ran.append(True))
    command.main()
    assert ran


@pytest.mark.parametrize("numpy", ["2.4.0", "2.10.1", "3.0.0rc1"])
def test_a_processor_that_numpy_dies_on_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, numpy: str) -> None:
    monkeypatch.setattr(command, "cpuid", lambda: ~(1 << 20))
    monkeypatch.setattr(command, "version", lambda _: numpy)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert str(ended.value) == (
        f"error: numpy {numpy} needs SSE4.2, which this processor lacks: run `pip install 'numpy<2.4'`, or give the "
        "virtual machine a newer processor"
    )
