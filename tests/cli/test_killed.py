"""A few kills of each command; `python tests/killed.py` does hundreds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dps_local

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the runs are forks")


def killed(kills: int, *commands: str) -> list[list[str]]:
    """Kill each command so many times; returns the rows of the table."""
    package = str(Path(dps_local.__file__).parent.parent)
    script = [sys.executable, "-P", str(Path(__file__).parents[1] / "killed.py"), "--kills", str(kills), *commands]
    environment = os.environ | {"PYTHONPATH": package}
    found = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.stdout.splitlines()[2:]]


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_of_a_chat_that_is_killed_the_answer_under_way_is_lost_at_most(kills: int) -> None:
    ((name, n, interrupted, right, _),) = killed(kills, "keep")
    assert (name, n, right) == ("keep", str(kills), str(kills))
    assert int(interrupted) > 0  # in the middle of an answer: else the kills tell nothing


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_a_chat_that_is_killed_around_keep_and_edit_leaves_the_profile_with_all_that_was_said_to_be_kept(
    kills: int,
) -> None:
    ((name, n, interrupted, right, left),) = killed(kills, "keep-answer")
    assert (name, n, right, left) == ("keep-answer", str(kills), str(kills), "0")
    assert int(interrupted) > 0 or kills < 200  # while the profile was written, which does not take long


def check(kills: int, *commands: str) -> None:
    rows = killed(kills, *commands)
    assert [row[0] for row in rows] == list(commands)
    assert [row[1::2] + row[4:] for row in rows] == [[str(kills), str(kills), "0"]] * len(commands)
    assert sum(int(row[2]) for row in rows) > 0  # while writing: else the kills tell nothing


@pytest.mark.slow
def test_after_a_kill_the_next_run_is_right_and_nothing_is_left_over() -> None:
    check(4, "score", "chat", "bake")


@pytest.mark.slow
def test_a_killed_download_from_the_hub_is_taken_up() -> None:
    pytest.importorskip("huggingface_hub")
    check(4, "pull-hub")


@pytest.mark.slow
def test_a_killed_download_by_pip_is_taken_up() -> None:
    check(2, "pull")
