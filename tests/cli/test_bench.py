"""`dps-local bench`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from program import Program
from tiny import TinyModel

from dps_local.maps.head_map import HeadMap


def test_bench_times_scoring(program: Program, model: Path) -> None:
    arguments = ["bench", "scoring", "-m", model, "-t", "1", "--repeats", "2", "--prompt-tokens", "20"]
    said = json.loads(program(*arguments, "--target-tokens", "4", "--json").stdout)
    assert said["ratio"] == pytest.approx(sum(said["ratios"]) / 2)
    for times, ratio, speedup in zip(said["repeats"], said["ratios"], said["brute_force_speedups"], strict=True):
        work = said["heads"] / (said["heads_at_a_time"] + 1)
        assert ratio == pytest.approx(work * times["prompt"] / times["batches"])
        assert speedup == pytest.approx(said["heads"] * times["brute"] / (times["read"] + times["batches"]))
    assert {"scored_tokens_per_s", "prompt_tokens_per_s", "brute_force_speedup", "peak_memory"} <= said.keys()
    assert (said["null_control"], said["most_heads_at_a_time"]) == (0, said["heads_at_a_time"])
    tokens = 4 * said["slope_texts"]
    by_hand = {
        "slope_tokens_per_s": [tokens / times["slopes"] for times in said["repeats"]],
        "slope_ratio": [
            tokens / times["slopes"] / (4 * (said["heads_at_a_time"] + 1) / times["prompt"])
            for times in said["repeats"]
        ],
        "slope_speedup": [tokens / times["slopes"] / (4 / times["batches"]) for times in said["repeats"]],
    }
    for name, values in by_hand.items():
        assert said[name] == pytest.approx(sum(values) / 2), name
    table = program(*arguments).stdout
    assert "times faster than brute force" in table
    assert "own tokens a second" in table
    assert re.search(r"null control +0 +what doing nothing changes *\n", table)


def test_bench_says_that_an_architecture_has_no_slopes(program: Program, tiny_model: TinyModel) -> None:
    arguments = ["bench", "scoring", "-m", tiny_model("gemma4"), "-t", "1", "--repeats", "1", "--prompt-tokens", "20"]
    said = json.loads(program(*arguments, "--target-tokens", "4", "--json").stdout)
    assert (said["slope_tokens_per_s"], said["slope_ratio"], said["slope_speedup"]) == (None, None, None)
    assert "this architecture has no backward pass" in program(*arguments).stdout


def test_bench_times_decoding(program: Program, model: Path, profile: Path, steering_map: Path) -> None:
    arguments = [
        "bench",
        "decode",
        "-m",
        model,
        "-p",
        profile,
        "--map",
        steering_map,
        "-t",
        "1",
        "-c",
        "512",
        "-n",
        "9",
    ]
    said = json.loads(program(*arguments, "--prompts", "2", "--temp", "0.8", "--json").stdout)
    keys = {"plain_ms", "eager_ratio", "steered_ratio", "same_tokens", "cold_ttft_ms", "amplify_ratio", "peak_memory"}
    assert keys <= said.keys()
    assert (said["same_tokens"], said["differ"]) == (1.0, [])
    assert said["prompts"] == 2
    assert said["steered_ratio"] == pytest.approx(sum(said["speculative_ratios"]) / 2)
    assert said["amplify_ratio"] == pytest.approx(sum(said["amplify_ratios"]) / 2) != 0
    assert 0 < said["muted_calls_share"] <= said["muted_tokens_share"]
    table = program(*arguments, "--prompts", "1").stdout
    assert all(method in table for method in ("contrast, speculative", "amplified heads"))
    assert "--gamma 0.5 steers" in program.fails(*arguments, "--gamma", "0")


def test_bench_says_that_a_map_has_nothing_to_amplify_by(
    program: Program, model: Path, profile: Path, steering_map: Path
) -> None:
    found = HeadMap.load(steering_map)
    replace(found, weights=np.zeros_like(found.weights)).save(steering_map)
    arguments = ["bench", "decode", "-m", model, "-p", profile, "--map", steering_map, "-t", "1", "-c", "512"]
    result = program(*arguments, "-n", "9", "--prompts", "1", "--json")
    assert json.loads(result.stdout)["amplify_ratio"] is None
    assert "has no weights to amplify heads by: amplification is not timed" in result.stderr
    assert "amplified heads" not in program(*arguments, "-n", "9", "--prompts", "1").stdout
