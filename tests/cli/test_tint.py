"""`/tint`: tokens that steering moved, in colours, while they come."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from program import QUICK
from screen import Screen

from dps_local.chat.explanation import explain
from dps_local.chat.session import Session
from dps_local.drawing.explanation import tint
from dps_local.engine.model import head_mask
from dps_local.maps.calibration import Calibration, Candidate
from dps_local.maps.head_map import HeadMap
from dps_local.steering.decoding import Step
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

Start = Callable[..., Screen]
TRUECOLOR = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


def test_a_shift_is_measured_among_plausible_tokens() -> None:
    assert Step(1, 0.2, None, 0.5, p_plausible=0.4).shift == pytest.approx(0.0)
    assert Step(1, 0.2, None, 0.8, p_plausible=0.4).shift == pytest.approx(0.470004)  # ln 1.6
    for unknown in (Step(1, None, None, 0.5), Step(1, 0.2, None, 0.5), Step(1, None, None, None)):
        assert unknown.shift is None


@pytest.mark.parametrize("engine", ["eager", "speculative"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_shifts_that_come_with_the_answer_are_those_of_its_explanation(
    open_session: Callable[..., Session], engine: str, beta: float
) -> None:
    session = open_session(engine=engine)
    heads = head_mask(session.model, [(0, 1), (1, 2)])
    session.steering = Steering(heads, Gamma(1.5), beta=beta)
    came = [token.shift for token in session.ask("hello there", 8)]
    assert came == pytest.approx([token.shift for token in explain(session, shares=False).tokens], abs=1e-4)
    assert max(abs(shift or 0) for shift in came) > 0.01


def test_a_tint_is_orange_or_blue_and_grows_to_one_nat() -> None:
    assert tint(None) == tint(0.0) == tint(0.04) == ""
    assert tint(1.0) == tint(7.0) == "#ffffff on #b34700"
    assert tint(-1.0) == "#ffffff on #0b4a8f"
    assert tint(0.5) == "#000000 on #f5a250"


def test_tokens_are_tinted_while_they_come(screen: Start, model: Path, profile: Path, steering_map: Path) -> None:
    steered = ["-p", profile, "--map", steering_map, *QUICK, "-n", "12", "--temp", "0", "--gamma", "3", "-t", "1"]
    chat = screen("chat", "-m", model, *steered, **TRUECOLOR)
    plain = chat.ask("hello")
    chat.ask("/undo")
    chat.ask("/tint on")
    n = len(chat.output)
    assert chat.ask("hello") == plain
    tinted = chat.output[n:].decode()
    assert re.search(r"\x1b\[38;2;\d+;\d+;\d+;48;2;\d+;\d+;\d+m", tinted)
    chat.ask("/undo")
    chat.ask("/tint off")
    n = len(chat.output)
    assert chat.ask("hello") == plain
    assert b";48;2;" not in chat.output[n:]
    assert "error: /tint takes on or off" in chat.ask("/tint")


def test_where_nothing_can_be_tinted_that_is_one_line(
    screen: Start, model: Path, profile: Path, steering_map: Path
) -> None:
    steered = ["-p", profile, "--map", steering_map, *QUICK, "-n", "4"]
    assert "shows too few colours" in screen("chat", "-m", model, *steered).ask("/tint on")
    assert "nothing to steer" in screen("chat", "-m", model, "-c", "512", **TRUECOLOR).ask("/tint on")
    calibration = Calibration(0.05, 0.01, 0.09, 12, Candidate("amplify", 2, 0.5), 1.1, 1.2)
    replace(HeadMap.load(steering_map), calibration=calibration).save(steering_map)
    amplified = screen("chat", "-m", model, *steered, "--mode", "amplify", "--gamma", "0.5", columns=160, **TRUECOLOR)
    assert "error: amplified heads have no plain stream beside them to compare with" in amplified.ask("/tint on")
