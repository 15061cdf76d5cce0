"""A small run of tests/fuzz.py, and that it finds what falls."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its workers are forked, and their memory measured")
if sys.platform == "linux":
    import fuzz
    from fuzz_targets import TARGETS, Target

    from dps_local.errors import DpsError


def test_nothing_falls_in_some_hundred_inputs(tmp_path: Path) -> None:
    names = [name for name in TARGETS if name not in ("models", "texts", "sealed-states")]
    for inputs, targets in (("150", names), ("30", ["models", "texts"])):
        command = [sys.executable, fuzz.__file__, "--inputs", inputs, "--faults", str(tmp_path), *targets]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        for name in targets:
            (row,) = (line.split() for line in ran.stdout.splitlines() if line.startswith(f"{name} "))
            assert row[1] == inputs
            assert int(row[2]) > 0, f"no input of {name} was read to its end"
            assert int(row[3]) > 0, f"no input of {name} was refused"


def attempt(data: bytes) -> None:
    match data:
        case b"refused":
            raise DpsError("no")
        case b"empty":
            raise DpsError("")
        case b"other":
            raise KeyError("x")
        case b"signal":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"hang":
            time.sleep(60)
        case b"memory":
            b"x" * (400 << 20)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # other tests' threads are of no use to a worker
def test_all_that_falls_is_found_and_the_next_input_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 5.0)
    inputs = [b"fine", b"refused", b"empty", b"other", b"signal", b"hang", b"memory", b"fine"]
    result = fuzz.run(Target("t", 1, inputs, lambda _: attempt), 0, 0, len(inputs))
    assert result.inputs == len(inputs)
    expected = {
        2: "DpsError of 0 lines",
        3: "KeyError at test_fuzz.py",
        4: "signal SIGKILL",
        5: "hang",
        6: "memory grew",
    }
    assert {i: fault[: len(expected[i])] for i, fault in result.faults} == expected
    assert (result.accepted, result.refused) == (3, 3)


def test_an_input_is_the_same_whenever_it_is_made() -> None:
    target = Target("t", 1, [b"one two three", b"four"], lambda _: attempt, [b"five"])
    made = [fuzz.made(target, 7, i) for i in range(50)]
    assert made == [fuzz.made(target, 7, i) for i in range(50)]
    assert made[:2] == [b"one two three", b"four"]
    assert len(set(made)) > 25
    assert made[2:] != [fuzz.made(target, 8, i) for i in range(2, 50)]
