"""`CallTimes`: what a call of one token takes, and one of two tokens, measured once for a machine and model."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from dps_local.engine import native
from dps_local.engine.context import KV_STEP, Context, Run, default_threads
from dps_local.engine.model import Model
from dps_local.errors import StorageError
from dps_local.system import cpu
from dps_local.system.files import atomic_write, cache_folder

FOLDER = "call-times"  # of the cache
LEAST_CALLS, MOST_CALLS, ENOUGH = 3, 20, 0.5  # of each kind that are timed, until so many seconds have passed


@dataclass(frozen=True)
class CallTimes:
    """Milliseconds of a call with one token, and of one with a token of each of two sequences; the least measured."""

    one: float
    two: float

    @classmethod
    def of(cls, model: Model, n_threads: int | None = None) -> CallTimes:
        """Return the times of a model with so many threads, from the cache if they are there."""
        path = _path(model, n_threads or default_threads())
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            return cls(**json.loads(path.read_text()))
        times = cls.measure(model, n_threads)
        with contextlib.suppress(StorageError), atomic_write(path) as file:
            file.write(json.dumps(asdict(times)).encode())
        return times

    @classmethod
    def measure(cls, model: Model, n_threads: int | None = None) -> CallTimes:
        """Time calls of both kinds in turn."""
        context = Context(model, KV_STEP, n_seq=2, n_outputs=2, n_threads=n_threads, batch_invariant=True)
        times: dict[int, list[float]] = {1: [], 2: []}
        try:
            for i in range(-1, MOST_CALLS):  # the first makes graphs, and a GPU's programs
                if i >= LEAST_CALLS and sum(map(sum, times.values())) > ENOUGH:
                    break
                for n in times:
                    start = perf_counter()
                    context.decode([Run(seq, 0, [0], 1) for seq in range(n)])
                    if i >= 0:
                        times[n].append(perf_counter() - start)
                    for seq in range(n):
                        context.truncate(seq, 0)
        finally:
            context.close()
        return cls(*(1000 * min(seconds) for seconds in times.values()))


def _path(model: Model, n_threads: int) -> Path:
    library = native.load()
    machine = [native.PATCH_VERSION, library.version, cpu.describe(), model.devices]
    key = json.dumps([machine, model.identity.digest, model.n_gpu_layers, n_threads])
    return cache_folder(FOLDER) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
