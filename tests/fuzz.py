"""Throws damaged and odd inputs at everything that reads what others wrote, and reports what falls.

    python tests/fuzz.py [--inputs N] [--seed S] [--only I] [--faults FOLDER] [TARGET …]

Each input is accepted, or refused by a DpsError of one line; anything else is a fault: another exception, a signal, a
hang, memory beyond a bound. Input I of a target depends on the seed alone: `--seed S --only I TARGET` makes it again.
Workers are forked, so nothing that falls takes the run with it; what fell is kept in FOLDER. Exit code 1 for a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import mmap
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # before the libraries are loaded
    os.environ |= {"DPS_LOCAL_SELF_TEST": "off", "OMP_NUM_THREADS": "1", "GGML_NO_BACKTRACE": "1"}
TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))

from fuzz_targets import TARGETS, Target, Try  # noqa: E402

from dps_local.engine import native  # noqa: E402
from dps_local.errors import DpsError  # noqa: E402

TOTAL = 1_000_000  # inputs of all targets together, unless --inputs says how many each one gets
CHUNK = 5000  # inputs of one worker
SECONDS = 60.0  # that one input may take, on a busy machine
RESIDENT = 256 << 20  # bytes that one worker's memory may grow by
ADDRESSES = 2 << 30  # bytes of address space that it may take more: what is beyond is a MemoryError
NUMBERS = [0, 1, 2, 7, 8, 9, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1]
NUMBERS += [1 << 63, (1 << 64) - 1]


def mutated(rng: random.Random, target: Target) -> bytes:
    """Return a seed of the target, changed in a few places."""
    chosen = rng.choice(target.seeds)
    data = bytearray(chosen)
    if target.numbers and rng.random() < 0.8:
        for _ in range(rng.choice((1, 1, 2, 4))):
            start, size = rng.choice(target.numbers(chosen))
            now = int.from_bytes(data[start : start + size], "little")
            number = rng.choice(
                (rng.choice(NUMBERS), now + rng.randrange(-3, 4), now * 2, now ^ 1 << rng.randrange(64))
            )
            data[start : start + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
        return bytes(data)
    if target.words and not target.numbers and rng.random() < 0.5:
        parts = re.findall(rb"\w+|\s+|.", chosen, re.DOTALL)
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            at = rng.randrange(len(parts))
            some = parts[at : at + rng.choice((1, 1, 2, 5, 20))]
            parts[at : at + rng.choice((0, 1, len(some)))] = rng.choice(
                (some * 2, [], [rng.choice(target.words)], some[::-1])
            )
            parts = parts or [b" "]
        return b"".join(parts)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        end = len(data)
        if target.head and rng.random() < 0.95:  # where the structure is; weights are only numbers
            end = min(end, target.head)
        at = rng.randrange(end + 1)
        n = min(rng.choice((1, 1, 2, 4, 8, 16, 64, 1024)), len(data) - at)
        match rng.randrange(9):
            case 0 if n:
                data[at] ^= 1 << rng.randrange(8)
            case 1 if n:
                data[at] = rng.randrange(256)
            case 2:
                size = rng.choice((4, 8))
                data[at : at + size] = struct.pack("<Q", rng.choice(NUMBERS))[:size]
            case 3:
                del data[at : at + n]
            case 4:
                data[at:at] = data[at : at + n] * rng.choice((1, 1, 2, 50))
            case 5:
                data[at:at] = rng.randbytes(n)
            case 6 if rng.random() < 0.3:
                del data[at:]
            case 7 if len(target.seeds) > 1:
                other = rng.choice(target.seeds)
                start = rng.randrange(len(other) + 1)
                data[at : at + n] = other[start : start + n]
            case _ if target.words:
                word = rng.choice(target.words)
                data[at : at + rng.choice((0, 0, len(word)))] = word
    return bytes(data)


def made(target: Target, seed: int, i: int) -> bytes:
    """Return input i: the first ones are the seeds themselves."""
    if i < len(target.seeds):
        return target.seeds[i]
    data = mutated(random.Random(f"{seed} {target.name} {i}"), target)
    return target.finish(data) if target.finish else data


# --- the worker


@dataclass
class Shared:
    """What a worker says while it lives: the input at hand, and how many were accepted and refused."""

    memory: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 24))

    def write(self, *numbers: int) -> None:
        self.memory[:] = struct.pack("<3q", *numbers)

    def read(self) -> tuple[int, ...]:
        return struct.unpack("<3q", self.memory[:])


def check(attempt: Try, data: bytes) -> tuple[bool, str]:
    """Return whether an input was accepted, and what is wrong with how it was refused ('' is nothing)."""
    try:
        attempt(data)
    except DpsError as exc:
        if not str(exc).strip() or len(str(exc).splitlines()) != 1:
            return False, f"{type(exc).__name__} of {len(str(exc).splitlines())} lines at {_place(exc)}: {str(exc)!r}"
        return False, ""
    except Exception as exc:
        return False, f"{type(exc).__name__} at {_place(exc)}: {str(exc)[:200]!r}"
    return True, ""


def _place(exc: BaseException) -> str:
    """Return where in our code an exception passed last: what tells one fault from another."""
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if f.filename.startswith(str(TESTS.parent))]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def work(target: Target, seed: int, start: int, end: int, shared: Shared, said: Path) -> None:
    """Try the inputs from start to end; faults of Python go to the file `said`, a line each."""
    with tempfile.TemporaryDirectory() as name, said.open("a", encoding="utf-8", errors="replace") as lines:
        attempt = target.open(Path(name))
        space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (space + ADDRESSES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        most = _resident() + RESIDENT
        accepted = refused = 0
        for i in range(start, end):
            shared.write(i, accepted, refused)
            good, fault = check(attempt, made(target, seed, i))
            accepted, refused = accepted + good, refused + (not good)
            if (here := _resident()) > most:
                fault, most = f"memory grew by {(here - most + RESIDENT) >> 20} MiB", here + RESIDENT
            if fault:
                print(f"{i}\t{fault}", file=lines, flush=True)
        shared.write(end, accepted, refused)


def _resident() -> int:
    """Return the most bytes of memory that this process ever had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


# --- the parent


@dataclass
class Result:
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: list[tuple[int, str]] = field(default_factory=list)  # (input, what fell)


def run(target: Target, seed: int, first: int, count: int) -> Result:
    """Try `count` inputs, in workers; one that falls is followed by another behind the input that felled it."""
    result, started, at = Result(), time.monotonic(), first
    with tempfile.TemporaryDirectory() as name:
        said, errors = Path(name) / "said", Path(name) / "errors"
        while at < first + count:
            shared, end = Shared(), min(at + CHUNK, first + count)
            shared.write(at, 0, 0)
            fell = _fork(target, seed, at, end, shared, said, errors)
            here, accepted, refused = shared.read()
            result.accepted, result.refused = result.accepted + accepted, result.refused + refused
            if fell:
                last = errors.read_text(errors="replace").strip().rpartition("\n")[2][:200]
                result.faults.append((here, f"{fell}: {last}"))
            result.inputs, at = result.inputs + min(here + bool(fell), end) - at, here + bool(fell)
        if said.exists():
            lines = (line.partition("\t") for line in said.read_text().splitlines())
            result.faults += [(int(i), fault) for i, _, fault in lines]
    result.seconds = time.monotonic() - started
    return result


def _fork(target: Target, seed: int, start: int, end: int, shared: Shared, said: Path, errors: Path) -> str:
    """Run one worker; return how it fell, '' when it did not."""
    pid = os.fork()
    if not pid:
        code = 1
        with contextlib.suppress(BaseException):
            out = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            for stream in (1, 2):
                os.dup2(out, stream)
            try:
                work(target, seed, start, end, shared, said)
                code = 0
            except BaseException:
                traceback.print_exc()
        os._exit(code)
    last, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if (here := shared.read()[0]) != last:
            last, since = here, time.monotonic()
        if time.monotonic() - since > SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"hang of more than {SECONDS:g} s"
        time.sleep(0.02)
    code = os.waitstatus_to_exitcode(status)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" if code else ""


def keep(folder: Path, target: Target, seed: int, faults: list[tuple[int, str]]) -> None:
    """Print each kind of fault once, with its first input and how to make it again."""
    kinds = Counter(fault.partition(": ")[0] for _, fault in faults)
    for kind, times in kinds.items():
        i, fault = next(f for f in faults if f[1].partition(": ")[0] == kind)
        folder.mkdir(parents=True, exist_ok=True)
        data = made(target, seed, i)
        path = folder / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        print(f"FAULT {target.name} × {times}: {fault}")
        print(f"      {path}, again: python tests/fuzz.py {target.name} --seed {seed} --only {i}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--inputs", type=int, help=f"of each target (default: {TOTAL:,} in all, most on cheap ones)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of the one input to try")
    parser.add_argument("--faults", type=Path, default=Path("fuzz-faults"), help="folder for inputs that felled")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(unknown)}: choose of {', '.join(TARGETS)}")
    native.load()  # once: workers inherit it
    if options.only is not None and len(options.targets) != 1:
        parser.error("--only needs one target")
    fell = False
    rows: list[tuple[str, ...]] = [("target", "inputs", "accepted", "refused", "faults", "seconds")]
    results = list[Result]()
    with tempfile.TemporaryDirectory() as name:
        for target_name in options.targets or TARGETS:
            target = TARGETS[target_name](Path(name))
            if not (options.targets or target.share):
                continue
            first, count = (options.only, 1) if options.only is not None else (0, options.inputs or target.share)
            result = run(target, options.seed, first, count)
            keep(options.faults, target, options.seed, result.faults)
            fell = fell or bool(result.faults)
            results.append(result)
            rows.append((target_name, *_row(result)))
    total = Result(*(sum(getattr(r, key) for r in results) for key in ("inputs", "accepted", "refused", "seconds")))
    total.faults = [fault for r in results for fault in r.faults]
    rows.append(("all", *_row(total)))
    for row in rows:
        print(f"{row[0]:14}" + "".join(f"{cell:>11}" for cell in row[1:]))
    return int(fell)


def _row(r: Result) -> tuple[str, ...]:
    return f"{r.inputs:,}", f"{r.accepted:,}", f"{r.refused:,}", str(len(r.faults)), f"{r.seconds:.0f}"


if __name__ == "__main__":
    sys.exit(main())
