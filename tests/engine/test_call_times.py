"""What calls of one and of two tokens take: measured once, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from opened import shared
from tiny import TinyModel

from dps_local.engine import call_times
from dps_local.engine.call_times import CallTimes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path))
    return tmp_path / call_times.FOLDER


@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2", "mamba"])
def test_both_kinds_of_calls_are_timed(tiny_model: TinyModel, kind: str) -> None:
    times = CallTimes.measure(shared(tiny_model(kind)), 1)
    assert 0 < times.one < 1000
    assert 0 < times.two < 1000


def test_a_machine_is_timed_once_for_each_model_and_number_of_threads(
    tiny_model: TinyModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = list[tuple[str, int | None]]()

    def measure(model: object, n_threads: int | None) -> CallTimes:
        measured.append((type(model).__name__, n_threads))
        return CallTimes(1.5, float(len(measured)))

    monkeypatch.setattr(CallTimes, "measure", measure)
    one, other = (shared(tiny_model(kind)) for kind in ("llama", "qwen2"))
    asked = [(one, 1), (other, 1), (one, 2), (one, 1), (other, 1)]
    assert [CallTimes.of(*which).two for which in asked] == [1, 2, 3, 1, 2]
    assert [n for _, n in measured] == [1, 1, 2]
    for path in cache.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_text(path.read_text()[:-1])  # damaged: as good as none
    assert CallTimes.of(one, 1).two == 4
