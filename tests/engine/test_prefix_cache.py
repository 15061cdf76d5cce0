from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TinyModel

from dps_local.assistant import Assistant, Settings
from dps_local.chat.session import Session
from dps_local.engine import native
from dps_local.engine.context import Context
from dps_local.engine.model import Model, Scope, head_mask
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.sampler import Sampling
from dps_local.engine.stream import Stream
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

SYSTEM = "You write for Ada, in her own voice. " * 4
PREFIX = [i % 250 for i in range(100)]

Load = Callable[[Path], Model]
Chat = Callable[..., Session]


@pytest.fixture
def chat(tiny_model: TinyModel, load: Load, tmp_path: Path) -> Iterator[Chat]:
    """`chat(kind, …)`: a new chat over a cache that all chats of a test share."""
    opened: list[Session] = []

    def open_(kind: str = "llama", **options: Any) -> Session:
        model = load(tiny_model(kind))
        defaults: dict[str, Any] = {"system": SYSTEM, "cache": PrefixCache(tmp_path), "sampling": Sampling(seed=1)}
        opened.append(Session(model, ChatTemplate(model), n_ctx=512, n_threads=1, probs=True, **defaults | options))
        return opened[-1]

    yield open_
    for session in opened:
        session.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of each call of Stream.decode."""
    calls: list[int] = []
    original = Stream.decode

    def decode(self: Stream, tokens: list[int], *rest: Any) -> Any:
        calls.append(len(tokens))
        return original(self, tokens, *rest)

    monkeypatch.setattr(Stream, "decode", decode)
    return calls


def contrast(model: Model, scope: Scope) -> Steering:
    return Steering(head_mask(model, [(1, 0)]), Gamma(1), scope=scope)


@pytest.mark.parametrize("scope", [None, "generated", "all"])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_a_warm_chat_is_the_cold_one_bit_for_bit(
    chat: Chat, read: list[int], tmp_path: Path, kind: str, scope: Scope | None
) -> None:
    answers = []
    for _ in range(2):
        session = chat(kind)
        session.steering = contrast(session.model, scope) if scope else None
        read.clear()
        answers.append([list(session.ask(question, 12)) for question in ("Who?", "When?")])
        longest = max(read)
        answers[-1].append(list(session.regenerate(12)))
    assert answers[0] == answers[1]
    assert longest < len(session.model.tokenize(SYSTEM, special=False))
    assert len(list(tmp_path.iterdir())) == (2 if scope == "all" else 1)


def test_entries_are_for_their_owner_only(chat: Chat, tmp_path: Path) -> None:
    list(chat().ask("Who?", 2))
    (entry,) = tmp_path.iterdir()
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600


def test_a_short_beginning_is_not_kept(chat: Chat, tmp_path: Path) -> None:
    list(chat(system="Be brief.").ask("Who?", 2))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def context(tiny_model: TinyModel, load: Load) -> Iterator[Context]:
    context = Context(load(tiny_model()), 256, n_threads=1)
    yield context
    context.close()


def kept(context: Context, cache: PrefixCache, tokens: list[int] = PREFIX) -> Path:
    """Read tokens into the empty context, keep the state, and empty it again."""
    stream = Stream(context)
    stream.clear()
    assert stream.read(tokens, cache)
    stream.clear()
    return cache.path(context, tokens, None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:10],
        lambda _: b"",
        lambda data: data[:-500] + bytes([data[-500] ^ 1]) + data[-499:],
        lambda data: bytes(32) + data[32:],
    ],
)
def test_a_damaged_entry_is_as_good_as_none(context: Context, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    cache = PrefixCache(tmp_path)
    path = kept(context, cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert not cache.load(context, PREFIX, None)
    assert kept(context, cache).read_bytes() == whole  # read and kept anew


def test_an_entry_that_cannot_be_marked_as_used_is_used(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PrefixCache(tmp_path)
    kept(context, cache)

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("dps_local.engine.prefix_cache.os.utime", refused)
    stream = Stream(context)
    assert stream.read(PREFIX, cache)
    assert stream.n == len(PREFIX)
    stream.decode([1])


def test_a_foreign_entry_is_not_taken(
    tiny_model: TinyModel, load: Load, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PrefixCache(tmp_path)
    kept(context, cache)
    assert cache.load(context, PREFIX, None)
    other = Context(load(tiny_model(seed=1)), 256, n_threads=1)
    larger = Context(context.model, 512, n_threads=1)
    scales = np.zeros((context.model.n_layer, context.model.n_head_max), np.float32)
    assert not cache.load(other, PREFIX, None)
    assert not cache.load(larger, PREFIX, None)
    assert not cache.load(context, PREFIX[:-1], None)
    assert not cache.load(context, PREFIX, scales)
    monkeypatch.setattr(native, "PATCH_VERSION", 99)
    assert not cache.load(context, PREFIX, None)
    other.close()
    larger.close()


def test_a_state_that_llama_cpp_refuses_leaves_the_context_empty(
    tiny_model: TinyModel, load: Load, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PrefixCache(tmp_path)
    other = Context(load(tiny_model("qwen2")), 256, n_threads=1)
    entry = kept(other, cache)
    monkeypatch.setattr(cache, "path", lambda *_: entry)
    assert not cache.load(context, PREFIX, None)
    stream = Stream(context)
    stream.decode(PREFIX)
    other.close()


def test_the_entries_that_were_not_used_for_the_longest_time_go_first(context: Context, tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path)
    paths = [kept(context, cache, [i, *PREFIX]) for i in range(3)]
    for age, path in enumerate(reversed(paths)):
        os.utime(path, ns=(time.time_ns() - (age + 1) * 10**9,) * 2)
    size = paths[0].stat().st_size
    assert cache.load(context, [0, *PREFIX], None)  # the oldest is used again
    small = PrefixCache(tmp_path, cap=3 * size + 1)
    newest = kept(context, small, [9, *PREFIX])
    assert set(tmp_path.iterdir()) == {paths[0], paths[2], newest}


def test_what_was_not_used_for_thirty_days_goes_when_the_next_chat_starts(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path))
    (tmp_path / "prefixes").mkdir()
    cache = PrefixCache(tmp_path / "prefixes")
    old, used, recent = (kept(context, cache, [i, *PREFIX]) for i in range(3))
    for path, days in ((old, 30.1), (used, 30.1), (recent, 29.9)):
        os.utime(path, (time.time() - days * 86400,) * 2)
    assert cache.load(context, [1, *PREFIX], None)
    Assistant(context.model, settings=Settings(n_ctx=256)).close()
    assert set(cache.folder.iterdir()) == {used, recent}


def test_a_clock_that_jumps_costs_no_entry_and_keeps_none_for_good(context: Context, tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path)
    ahead, used, newest = (kept(context, cache, [i, *PREFIX]) for i in range(3))
    os.utime(ahead, (time.time() + 1000 * 86400,) * 2)
    os.utime(used, (time.time() - 86400,) * 2)
    cache.tidy()
    assert set(tmp_path.iterdir()) == {ahead, used, newest}
    PrefixCache(tmp_path, cap=2 * newest.stat().st_size).tidy()
    assert set(tmp_path.iterdir()) == {used, newest}


def test_what_is_larger_than_the_cap_is_not_kept(context: Context, tmp_path: Path) -> None:
    kept(context, PrefixCache(tmp_path, cap=100))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_no_error(context: Context, tmp_path: Path) -> None:
    kept(context, PrefixCache(tmp_path / "missing"))
