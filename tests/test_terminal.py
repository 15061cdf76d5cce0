"""Notices and progress, as logs have them."""

from __future__ import annotations

import time

import pytest

from dps_local.terminal import Terminal


def test_the_time_left_is_by_the_pace_of_now(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on where it stopped is past the first half at once, and slow from there."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Terminal().progress("reading") as progress:
        progress(0, 20)
        progress(10, 20)
        for done in (11, 12, 15, 20):
            now += 6.0
            progress(done, 20)
    # 12 s for 2 of 20, then 6 s for 3
    assert capsys.readouterr().err.splitlines() == [
        "reading: 50 %, 0 s left",
        "reading: 60 %, 48 s left",
        "reading: 70 %, 10 s left",
        "reading: 100 %, 0 s left",
    ]
