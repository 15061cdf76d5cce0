"""`dps-local eval` as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import PROGRAM
from tiny import TinyModel

EVAL = [*PROGRAM, "eval"]
QUICK = ["-c", "768", "-t", "1", "--examples", "2", "--target-tokens", "6", "--profile-tokens", "300", "-n", "6"]
REQUEST = "Generate a headline for the following article: "

Run = Callable[..., subprocess.CompletedProcess[str]]


def writer(name: str) -> dict[str, Any]:
    items = [{"id": f"i{i}", "title": f"{name} writes {i}", "text": f"It was day {i}."} for i in range(3)]
    queries = [{"id": f"q{i}", "input": f"{REQUEST}Then came {i}.", "output": f"{name} is here, {i}"} for i in range(2)]
    return {"user_id": name, "task": "news_headline", "profile": items, "queries": queries}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "users.jsonl"
    path.write_text("".join(json.dumps(writer(name)) + "\n" for name in ("Ada", "Bob", "Cyd", "Dot")))
    return path


@pytest.fixture
def run(tmp_path: Path, tiny_model: TinyModel) -> Run:
    environment = os.environ | {"DPS_LOCAL_CACHE": str(tmp_path / "cache"), "PYTHONWARNINGS": "error", "COLUMNS": "80"}
    model = str(tiny_model("llama"))

    def run_(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*EVAL, *map(str, arguments), "-m", model, *QUICK]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=300, check=False, cwd=tmp_path
        )

    return run_


def test_an_evaluation_prints_rows_and_writes_a_report(run: Run, data: Path, tmp_path: Path) -> None:
    arguments = (data, "--methods", "none,profile,random,pcs", "--gamma", "0.5,1", "--top", "2", "--heads-from", "task")
    found = run(*arguments, "--json", "-o", "out")
    assert found.returncode == 0, found.stderr
    rows = json.loads(found.stdout)["rows"]
    assert {"task", "model", "method", "metric", "value", "low", "high", "users", "queries"} <= rows[0].keys()
    assert {row["method"] for row in rows} == {"none", "profile", "random", "pcs"}
    assert {row["gamma"] for row in rows if row["method"] == "pcs"} == {"0.5", "1"}
    assert {row["queries"] for row in rows} == {8}
    assert "DEBUG" not in found.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Does steering help?" in page
    assert "news" in (tmp_path / "out" / "report.md").read_text()
    again = run(*arguments, "-o", "out")
    assert again.returncode == 0, again.stderr
    assert (
        "taking up an earlier run: 80 of 80 results are known" in again.stderr
    )  # 8 queries in 1 + 1 + 2 · 3 + 2 conditions
    assert "news_headline" in again.stdout
    assert all(len(line) <= 80 for line in again.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--methods", "magic"], 2, "no method 'magic'"),
        (["--gamma", "much"], 2, "γ is 'much'"),
        (["--top", "two"], 2, "'two' is no list of numbers, such as 1,2,4"),
        (["--beta", "-1"], 2, "has numbers below 0"),
        (["--items", ""], 2, "need a value each"),
        (["--vector", ""], 2, "need a value each"),
        (["--methods", "cache", "--cache", "entropy"], 1, "the strength of cache must be a number"),
    ],
)
def test_mistakes_are_told_in_a_line(run: Run, data: Path, arguments: list[str], code: int, message: str) -> None:
    found = run(data, *arguments)
    assert found.returncode == code
    assert message in " ".join(found.stderr.replace("│", " ").split())
    assert "Traceback" not in found.stderr


def test_data_that_is_no_data_is_told_before_anything_is_computed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"user_id": "Ada"}\n')
    found = run(tmp_path / "bad.jsonl")
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert line.startswith("error: ")
    assert "bad.jsonl" in line
    assert not (tmp_path / "eval").exists()
