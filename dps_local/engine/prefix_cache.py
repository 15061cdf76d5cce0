"""`PrefixCache`: the KV state of a prompt's beginning, kept on disk, so that a profile is read once and for all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dps_local.engine import native
from dps_local.engine.context import Context
from dps_local.engine.model import HeadScales
from dps_local.errors import DpsError, NativeError
from dps_local.system.files import sweep
from dps_local.system.owned_files import OwnedFiles
from dps_local.system.sealed_file import DIGEST, load_sealed, save_sealed

LEAST = 64  # tokens: a shorter beginning is read faster than it is loaded
CAP = 2_000_000_000  # bytes of all entries together
DAYS = 30  # that an entry stays without being used: its profile may have changed, or be gone


class PrefixCache:
    """A folder of KV states in llama.cpp's own format, each behind its SHA-256.

    An entry is found under a hash of all that its values depend on: the model, the library, the settings of the
    context, the tokens and the head scales. One that is damaged is as good as none. One that was not used for DAYS
    goes, and when all of them together are larger than `cap` bytes, those that were not used for the longest time. The
    files are readable by their owner only: they hold in numbers what the profile holds in words.
    owned: where it is noted whose they are.
    """

    def __init__(self, folder: Path, cap: int = CAP, owned: OwnedFiles | None = None) -> None:
        self.folder, self.cap, self.owned = folder, cap, owned

    def path(self, context: Context, tokens: Sequence[int], scales: HeadScales | None) -> Path:
        """Return where the state of a context that has read `tokens` with these scales is kept."""
        library = [native.PATCH_VERSION, context.native.version]
        heads = None if scales is None else np.asarray(scales, np.float32).tolist()
        key = json.dumps([library, context.model.identity.digest, context.settings, list(tokens), heads])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.state"

    def load(self, context: Context, tokens: Sequence[int], scales: HeadScales | None, seq: int = 0) -> bool:
        """Put the state into an empty sequence; False, with the sequence still empty, when there is none."""
        path = self.path(context, tokens, scales)
        state = load_sealed(path)
        if state is None:
            return False
        self._note(path)
        try:
            context.set_state(state, seq)
        except NativeError:
            context.truncate(seq, 0)
            return False
        with contextlib.suppress(OSError):  # a cache that others own is good to read
            os.utime(path)
        return True

    def save(self, context: Context, tokens: Sequence[int], scales: HeadScales | None, seq: int = 0) -> None:
        """Keep the state of a sequence that has read `tokens` and nothing else; a full disk is no error."""
        state = context.state(seq)
        if DIGEST + len(state) > self.cap:
            return
        path = self.path(context, tokens, scales)
        try:
            self._note(path)
            save_sealed(path, state)
        except DpsError:
            return
        self.tidy(path)

    def _note(self, path: Path) -> None:
        if self.owned:
            self.owned.note([path])

    def tidy(self, newest: Path | None = None) -> None:
        """Delete what was not used for DAYS, then what was not used for the longest time until all the rest fits."""
        sweep(self.folder)
        entries, now = [], time.time_ns()
        for path in self.folder.glob("*.state"):
            try:
                age, size = now - path.stat().st_mtime_ns, path.stat().st_size
            except OSError:  # another process was faster
                continue
            # a time to come, as a clock was or is wrong: as far off as one past, but no reason to go
            entries.append((path != newest, abs(age), age > DAYS * 24 * 3600 * 10**9, size, path))
        total = sum(size for _, _, _, size, _ in entries)
        for _, _, expired, size, path in sorted(entries, reverse=True):
            if expired or total > self.cap:
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size
