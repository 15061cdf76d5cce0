"""`dps-local score`: what it says and keeps, and what it refuses in one line."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from program import PROFILE, PROGRAM, QUICK, Program, Terminal
from tiny import TinyModel

from dps_local.maps.head_map import HeadMap


def test_layers_without_heads_are_named(program: Program, tiny_model: TinyModel, profile: Path) -> None:
    result = program("score", "-m", tiny_model("lfm2"), "-p", profile, *QUICK, "--json")
    missing = [layer for layer, row in enumerate(json.loads(result.stdout)["pcs"]) if set(row) == {None}]
    assert missing
    assert f"no attention heads that can be muted in layers {', '.join(map(str, missing))}\n" in result.stderr


def test_a_model_without_any_attention_is_refused(program: Program, tiny_model: TinyModel, profile: Path) -> None:
    assert "no attention heads to score" in program.fails("score", "-m", tiny_model("mamba"), "-p", profile, *QUICK)


def test_scoring_says_what_it_found(program: Program, model: Path, profile: Path) -> None:
    result = program("score", "-m", model, "-p", profile, *QUICK)
    said = " ".join(result.stdout.split())
    assert "no head qualifies: no lower bound of gain is above 0" in said
    assert "null control 0; 36 head evaluations" in said  # 18 heads, 2 examples
    assert re.search(r"steering does not help on your writing.* it stays off", said)
    assert re.search(r"^head map: .*; peak memory \d\.\d GB$", result.stderr, re.MULTILINE)


@pytest.mark.parametrize("ranking", ["pcs", "gain", "contrast"])
def test_heads_are_ranked_as_asked(ranking: str, program: Program, model: Path, profile: Path) -> None:
    result = program("score", "-m", model, "-p", profile, *QUICK, "--score", ranking, "--json")
    said = json.loads(result.stdout)
    assert said["ranking"] == ranking
    assert (said["contrast"][0][0] is not None) == (ranking == "contrast")


@pytest.mark.parametrize("exhaustive", [False, True])
def test_poor_heads_are_dropped_early_unless_all_are_asked_for(program: Program, model: Path, exhaustive: bool) -> None:
    arguments = ["score", "-m", model, "-p", "mara", "--examples", "8", "--target-tokens", "4", "-c", "512", "--json"]
    said = json.loads(program(*arguments, *["--exhaustive"] * exhaustive).stdout)
    counts = np.array(said["counts"])
    assert counts.max() == said["examples"] == 8
    assert counts.min() == (8 if exhaustive else counts.min())
    assert said["evaluations"] == counts.sum()
    assert (said["evaluations"] == 18 * 8) == exhaustive
    assert -1 <= said["reliability"]["spearman"] <= 1
    assert 0 <= said["reliability"]["jaccard"] <= 1
    assert said["reliability"]["heads"] == (counts == 8).sum()
    assert said["calibration"]["low"] <= said["calibration"]["gain"] <= said["calibration"]["high"]
    assert said["calibration"]["n"] == 26  # each item in turn


def test_scoring_options_reach_the_map(program: Program, model: Path, profile: Path) -> None:
    arguments = ["score", "-m", model, "-p", profile, *QUICK, "--json"]
    said = json.loads(program(*arguments, "--ablation-scale", "0.9", "--seed", "7", "--profile-contrast").stdout)
    assert (said["ablation_scale"], said["seed"]) == (0.9, 7)
    assert said["contrast"][0][0] is not None
    assert program(*arguments, "--ablation-scale", "1").returncode == 2
    assert program(*arguments, "--target-tokens", "129").returncode == 2


def test_what_an_earlier_run_measured_is_taken_up(
    program: Program, model: Path, profile: Path, head_map: Path, tmp_path: Path
) -> None:
    arguments = ["score", "-m", model, "-p", profile, *QUICK]
    for file in (tmp_path / "cache" / "maps").iterdir():
        file.unlink()
    assert "taking up an earlier run: 2 of 2 texts are known" in program(*arguments).stderr
    assert "texts are known" not in program(*arguments, "--no-reuse").stderr
    profile.write_text(json.dumps(PROFILE | {"name": PROFILE["name"], "about": "Now writes of engines."}))
    assert "the profile has changed since it was last scored: scoring starts afresh" in program(*arguments).stderr
    stored = [p for p in (tmp_path / "cache" / "scores").iterdir() if p.suffix == ".f64"]
    assert len(stored) == 2
    assert {p.stat().st_mode & 0o777 for p in stored} == {0o600}
    assert HeadMap.load(head_map).evaluations == 36


def test_progress_is_readable_in_a_log(program: Program, model: Path, profile: Path) -> None:
    result = program("score", "-m", model, "-p", profile, *QUICK)
    assert re.search(r"^scoring heads: 100 %, 0 s left$", result.stderr, re.MULTILINE)
    assert result.stderr.count("scoring heads: reading the profile\n") == 1
    again = program("score", "-m", model, "-p", profile, *QUICK)
    assert "scoring heads" not in again.stderr


def test_bad_profiles_are_one_line(program: Program, model: Path, tmp_path: Path) -> None:
    cases = {
        '{"history": [}': "line 1: not valid JSON",
        '{"history": [\n{"output": 3}]}': "line 2: history[0].output must be a string",
        '{"history": []}': "needs 'history' or 'preferences'",
        '{"style": "x", "history": [{"output": "y"}]}': "style is not a known key",
    }
    for text, expected in cases.items():
        path = tmp_path / "bad.json"
        path.write_text(text)
        assert expected in program.fails("score", "-m", model, "-p", path)
    assert "no profile 'nobody'" in program.fails("chat", "-m", model, "-p", "nobody")
    (tmp_path / "wishes.json").write_text('{"preferences": ["short"]}')
    assert "has no history" in program.fails("score", "-m", model, "-p", tmp_path / "wishes.json")


def test_no_space_left_is_one_line_and_leaves_nothing(
    program: Program, model: Path, profile: Path, tmp_path: Path
) -> None:
    limited = ["sh", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$@"', "sh", *PROGRAM]
    output = tmp_path / "out" / "map.dps.gguf"
    output.parent.mkdir()
    result = subprocess.run(
        [*limited, "score", "-m", model, "-p", profile, *QUICK, "-o", output],
        capture_output=True,
        text=True,
        env=program.environment,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: cannot write")
    assert list(output.parent.iterdir()) == []


def test_ctrl_c_while_scoring_leaves_no_map(
    terminal: Callable[..., Terminal], tiny_model: TinyModel, tmp_path: Path
) -> None:
    arguments = ["--examples", "26", "--target-tokens", "60", "--profile-tokens", "100", "-c", "512"]
    score = terminal("score", "-m", tiny_model("llama"), "-p", "mara", *arguments)
    score.wait_for("scoring heads")
    score.interrupt()
    assert score.exit_code() == 130
    assert "Ctrl-C: stopping as soon as this step is done" in score.screen
    assert "Traceback" not in score.screen
    assert not list((tmp_path / "cache").glob("maps/*"))


def test_scoring_that_ctrl_c_stopped_is_taken_up(
    terminal: Callable[..., Terminal], program: Program, tiny_model: TinyModel, tmp_path: Path
) -> None:
    arguments = ["--examples", "13", "--target-tokens", "60", "--profile-tokens", "100", "-c", "512"]
    command = ["score", "-m", tiny_model("llama"), "-p", "mara", *arguments]
    score = terminal(*command)
    stored = tmp_path / "cache" / "scores"
    end = time.monotonic() + 60
    while not list(stored.glob("*.f64")):
        score.read()
        assert time.monotonic() < end, score.screen
    score.interrupt()
    assert score.exit_code() == 130
    before = len(list(stored.glob("*.f64")))
    again = program(*command, "--json")
    known, texts = re.findall(r"taking up an earlier run: (\d+) of (\d+) texts are known", again.stderr)[0]
    assert 0 < int(known) == before <= int(texts)
    afresh = program(*command, "--json", "--no-reuse")
    assert "taking up" not in afresh.stderr
    assert json.loads(afresh.stdout) == json.loads(again.stdout)
