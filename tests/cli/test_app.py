"""The command line as a whole: mistakes in its use exit with 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from program import Program


@pytest.mark.parametrize("option", ["-m", "-p"])
@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_a_mistake(program: Program, option: str, name: str) -> None:
    for command in (["generate", "hi"], ["chat"], ["score"]):
        result = program(*command, option, name)
        assert result.returncode == 2
        assert "the name is empty" in result.stderr


def test_usage_errors_exit_with_2(program: Program, model: Path) -> None:
    for arguments in (
        ["generate", "--gamma", "much", "hi"],
        ["generate", "--beta", "2", "hi"],
        ["generate", "-m", str(model), "--compare", "--json", "hi"],
        ["inspect"],
        ["score"],
        ["nonesuch"],
    ):
        result = program(*arguments)
        assert result.returncode == 2, arguments
        assert "Traceback" not in result.stderr


def test_an_error_ends_with_what_helps_here(program: Program, model: Path, head_map: Path, tmp_path: Path) -> None:
    none = tmp_path / "none.dps.gguf"
    cases = {
        ("generate", "-m", "smollm2-135m", "hi"): "model 'smollm2-135m' (93 MB) is not downloaded yet: "
        "run `dps-local models pull smollm2-135m`",
        ("generate", "-m", "nowhere/x", "hi"): "'nowhere/x' is neither a file nor a known model: "
        "`dps-local models list` shows the models",
        ("inspect", none): f"{none} does not exist: give the path of a GGUF file or a name from "
        "`dps-local models list`",
        ("inspect", model): f"{model} holds no head map: make one with `dps-local score`",
        ("generate", "-m", head_map, "hi"): f"{head_map} is a head map, not a model: give it as --map, beside the "
        "--model that it was made for",
        ("generate", "-m", model, "-c", "256", "--explain", "hi"): "nothing steers the answer, so there is nothing to "
        "explain: --profile or --map gives the heads, --gamma 0.5 the strength",
    }
    for arguments, line in cases.items():
        assert program.fails(*arguments) == f"error: {line}"


def test_help_begins_with_what_a_person_needs_first(program: Program) -> None:
    chat = panels(program("chat", "--help").stdout)
    assert list(chat) == ["Options", "Steering", "Answer", "Scoring", "Clusters", "Expert"]
    first = ["--model", "--ctx-size", "--profile", "--gamma", "--n-predict", "--temp"]
    assert chat["Options"] == [*first, "--continue", "--resume", "--save", "--help"]
    every = [option for options in chat.values() for option in options]
    assert len(every) == len(set(every))
    assert {"--threads", "--engine", "--offline"} <= set(chat["Expert"])
    assert panels(program("generate", "--help").stdout)["Scoring"] == chat["Scoring"]
    assert list(panels(program("serve", "--help").stdout))[-1] == "Expert"


def panels(shown: str) -> dict[str, list[str]]:
    """The options in each panel of a help text."""
    pieces = re.split(r"╭─ (.+?) ─+╮", shown)[1:]
    options = [re.findall(r"^│ [* ]*(--[a-z-]+)", text, re.MULTILINE) for text in pieces[1::2]]
    return dict(zip(pieces[::2], options, strict=True))
