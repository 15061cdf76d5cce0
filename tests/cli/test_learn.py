"""`dps-local learn`: which head map steers as a profile grows, and that only the person's own words count."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import PROFILE, QUICK, Inside, Program, Terminal

from dps_local.engine.model import Model
from dps_local.maps.calibration import Calibration, Candidate
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.feedback import add_feedback, feedback_item
from dps_local.prompting.profile import Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.options import ScoringOptions
from dps_local.server.person import Person

SET_UP = [*QUICK, "-t", "1"]
GREEDY = ["-n", "8", "--temp", "0", "--no-save"]
NUMBER = r"[+−]\d+\.\d{3} ± \d+\.\d{3} nats a token"


@pytest.fixture
def program(inside: Inside) -> Program:
    return inside


@pytest.fixture
def learn(program: Program, model: Path, profile: Path) -> Callable[..., str]:
    def run(*more: str) -> str:
        result = program("learn", "-m", model, "-p", profile, *SET_UP, *more)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("\n") == 1
        return result.stdout.strip()

    return run


@pytest.fixture
def chat(program: Program, model: Path, profile: Path) -> Callable[..., Any]:
    def run(*lines: str) -> Any:
        return program("chat", "-m", model, "-p", profile, *SET_UP, *GREEDY, stdin="\n".join(lines))

    return run


def maps(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "cache" / "maps").glob("*.dps.gguf")}


def only_map(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "maps").glob("*.dps.gguf")
    return path


def rate(path: Path, low: float, gain: float, high: float, gamma: float = 1.0) -> None:
    """Let a map steer by the amplification of one head, as if it had been measured to be worth so much."""
    found = HeadMap.load(path)
    weights = np.zeros_like(found.weights)
    weights[1, 2] = 1
    calibration = Calibration(gain, low, high, 12, Candidate("amplify", None, gamma), 1.0, 1.0)
    replace(found, weights=weights, mode="amplify", gamma=gamma, calibration=calibration).save(path)


def write_more(profile: Path, n: int) -> None:
    for _ in range(n):
        before = len(Profile.load(profile).history)
        assert add_feedback(profile, feedback_item(f"And {before}?", f"By gum, {before} of them, aye.", kind="edited"))


def test_it_says_what_steering_is_worth_and_then_that_nothing_is_new(learn: Callable[..., str], tmp_path: Path) -> None:
    assert re.fullmatch(rf"3 items; steering is worth {NUMBER}; steering stays off", learn())
    before = maps(tmp_path)
    assert learn() == "no change: nothing that you wrote or edited is new"
    assert json.loads(learn("--json")) == {"new": 0, "gone": 0, "replaced": False}
    assert maps(tmp_path) == before


def test_a_map_that_is_worth_less_does_not_replace_the_one_before(
    learn: Callable[..., str], chat: Callable[..., Any], profile: Path, tmp_path: Path
) -> None:
    learn()
    rate(only_map(tmp_path), 0.01, 0.03, 0.05)
    plain = chat("/gamma 0", "Where?").stdout
    steered = chat("Where?")
    assert steered.stdout != plain
    write_more(profile, 2)
    grown = chat("Where?")
    assert "steering is worth +0.030 [+0.010, +0.050] nats a token" in grown.stderr
    assert "the head map was learned before 2 of your texts: `dps-local learn` scores them" in grown.stderr
    was = r"it is \+0\.030 ± 0\.020"
    assert re.fullmatch(
        rf"2 new items; steering would now be worth {NUMBER}, {was}: the earlier head map stays", learn()
    )
    assert len(maps(tmp_path)) == 2
    after = chat("Where?")
    assert after.stdout == grown.stdout
    assert "+0.030" in after.stderr
    assert "learn" not in after.stderr  # nothing is new any more
    assert learn().startswith("no change")


def test_a_map_that_is_no_worse_replaces_the_one_before_and_can_be_undone_bit_for_bit(
    learn: Callable[..., str], chat: Callable[..., Any], profile: Path, tmp_path: Path
) -> None:
    learn()
    first = only_map(tmp_path)
    rate(first, -9999.0, -0.5, 9998.0)
    before, answer = first.read_bytes(), chat("/gamma 2", "Where?").stdout
    write_more(profile, 1)
    grown = chat("/gamma 2", "Where?").stdout
    assert re.fullmatch(
        rf"1 new item; steering is now worth {NUMBER}, it was −0\.500 ± 9998\.500; steering stays off", learn()
    )
    assert "−0.500" not in chat("Where?").stderr
    assert learn("--undo") == "the earlier head map is back: steering is worth −0.500 ± 9998.500 nats a token"
    assert first.read_bytes() == before
    again = chat("/gamma 2", "Where?")
    assert again.stdout == grown
    assert "−0.500" in again.stderr
    assert learn().startswith("no change")  # what was undone is not learned again
    assert answer  # of a profile that was shorter


def test_without_an_earlier_map_nothing_can_be_undone(
    learn: Callable[..., str], program: Program, model: Path, profile: Path
) -> None:
    command = ["learn", "-m", model, "-p", profile, *SET_UP, "--undo"]
    assert program.fails(*command) == "error: there is no earlier head map to go back to"
    learn()
    assert program.fails(*command) == "error: there is no earlier head map to go back to"


def test_fifty_answers_that_are_kept_are_no_evidence(
    learn: Callable[..., str], chat: Callable[..., Any], program: Program, model: Path, profile: Path, tmp_path: Path
) -> None:
    def evidence() -> tuple[int, int]:
        found = json.loads(program("score", "-m", model, "-p", profile, *SET_UP, "--json").stdout)
        return found["calibration"]["n"], found["examples"]

    learn()
    before = evidence()
    rate(only_map(tmp_path), 0.01, 0.03, 0.05)
    learned = only_map(tmp_path).read_bytes()
    said = chat(*(line for i in range(50) for line in (f"Say {i}?", "/keep", "/undo"))).stderr
    assert said.count(f"kept: {profile}") == 50
    user = Profile.load(profile)
    assert (len(user.history), user.own_items()) == (53, [0, 1, 2])
    assert learn() == "no change: nothing that you wrote or edited is new"
    assert only_map(tmp_path).read_bytes() == learned
    assert "+0.030" in chat("Where?").stderr
    assert evidence() == before


def test_keeping_an_answer_leaves_the_map_in_use_and_scores_nothing(
    chat: Callable[..., Any], learn: Callable[..., str], profile: Path, tmp_path: Path
) -> None:
    assert chat("Where?").returncode == 0  # which scores the profile
    rate(only_map(tmp_path), 0.01, 0.03, 0.05)
    chat("Where?", "/keep")
    again = chat("And when?")
    assert "+0.030" in again.stderr
    only_map(tmp_path)
    write_more(profile, 1)
    assert ", it is +0.030 ± 0.020: the earlier head map stays" in learn()


def test_the_server_answers_with_it_too(
    learn: Callable[..., str],
    profile: Path,
    tmp_path: Path,
    model: Path,
    load: Callable[[Path], Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))
    learn()
    rate(only_map(tmp_path), 0.01, 0.03, 0.05)
    write_more(profile, 1)
    prompter = Prompter.of(load(model), Profile.load(profile), n_ctx=512, profile_tokens=60)
    own, said = CachedMap(prompter, ScoringOptions(examples=2, target_tokens=6)), list[str]()
    heads = Person.load(prompter, own, said.append).heads
    assert heads
    assert heads.calibration
    assert heads.calibration.gain == pytest.approx(0.03)
    assert said == ["the head map was learned before 1 of your texts: `dps-local learn` scores them"]
    again = CachedMap(prompter, replace(own.options, resume=False))
    assert Person.load(prompter, again, said.append).heads is None  # --no-reuse asks for another one


def test_another_persons_profile_under_the_same_name_has_nothing_learned(
    learn: Callable[..., str], profile: Path
) -> None:
    learn()
    other = [{"input": "hm", "output": f"Well, {i} it is, dear."} for i in range(4)]
    profile.write_text(json.dumps(PROFILE | {"history": other}))
    assert learn().startswith("4 items; steering is worth")


def test_scoring_does_not_replace_what_was_learned(
    learn: Callable[..., str], program: Program, model: Path, profile: Path
) -> None:
    learn()
    assert "chats go on" not in program("score", "-m", model, "-p", profile, *SET_UP).stderr
    write_more(profile, 1)
    result = program("score", "-m", model, "-p", profile, *SET_UP)
    assert "chats go on with the head map that `dps-local learn` chose" in result.stderr


def test_ctrl_c_leaves_what_was_learned(
    terminal: Callable[..., Terminal], learn: Callable[..., str], model: Path, profile: Path, tmp_path: Path
) -> None:
    thorough = ["--examples", "6", "--target-tokens", "60", "--exhaustive"]
    learn(*thorough)
    before = maps(tmp_path)
    write_more(profile, 12)
    one = terminal("learn", "-m", model, "-p", profile, *SET_UP, *thorough)
    one.wait_for("scoring heads")
    one.interrupt()
    ended = one.exit_code() == 130
    assert {name: maps(tmp_path)[name] for name in before} == before
    assert learn(*thorough).startswith("12 new items; " if ended else "no change")


def test_nothing_of_it_is_left_after_a_wipe(
    learn: Callable[..., str], program: Program, profile: Path, tmp_path: Path
) -> None:
    learn()
    write_more(profile, 1)
    learn()
    kinds = [file["kind"] for file in json.loads(program("privacy", "--json").stdout)]
    assert kinds.count("learned map") == 1
    assert program("privacy", "wipe", "-p", profile, "--yes").returncode == 0
    assert json.loads(program("privacy", "--json").stdout) == []
    assert list((tmp_path / "cache" / "maps").iterdir()) == []


def test_a_profile_of_kept_answers_alone_has_nothing_to_learn_from(
    program: Program, model: Path, profile: Path
) -> None:
    history = [{"output": "As a model, aye.", "kind": "kept"}]
    profile.write_text(json.dumps(PROFILE | {"history": history}))
    assert "a model's words" in program.fails("learn", "-m", model, "-p", profile, *SET_UP)


def test_one_text_is_too_little_to_say_what_steering_is_worth(learn: Callable[..., str], profile: Path) -> None:
    profile.write_text(json.dumps(PROFILE | {"history": PROFILE["history"][:1]}))
    assert learn() == "1 item; steering is worth an unknown amount; steering stays off"
