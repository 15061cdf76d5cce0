"""Settings that are kept in a file: what they are, whence they come, and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program import Program
from typer.main import get_command

from dps_local.cli.app import app
from dps_local.cli.settings import SettingsFile, known_settings
from dps_local.errors import SettingsError

KNOWN = known_settings(get_command(app))


@pytest.fixture
def file(environment: dict[str, str]) -> Path:
    path = Path(environment["DPS_LOCAL_CONFIG"])
    path.parent.mkdir()
    return path


def shown_settings(program: Program) -> dict[str, tuple[Any, str]]:
    rows = json.loads(program("config", "show", "--json").stdout)["settings"]
    return {row["key"]: (row["value"], row["from"]) for row in rows}


def test_what_can_be_set_is_what_commands_take() -> None:
    for key in ("model", "ctx-size", "temp", "threads", "chat.history", "chat.temp", "serve.port", "eval.users"):
        assert key in KNOWN
    assert ("bench", "decode") in KNOWN["model"].options
    for key in (
        "json",
        "score.as-json",
        "score.json",
        "help",
        "bake.output",
        "bench.decode.model",
        "profile.merge.output",
    ):
        assert key not in KNOWN


def test_flags_go_before_the_environment_before_the_file_before_defaults(
    program: Program, model: Path, file: Path
) -> None:
    file.write_text(f'model = "{model}"\nctx-size = 256\nn-predict = 3\ntemp = 0\n\n[generate]\nn-predict = 5\n')

    def count(*given: str) -> int:
        return len(json.loads(program("generate", "--json", *given, "hi").stdout)["tokens"])

    assert count() == 5  # the command's own table
    assert count("-n", "2") == 2
    program.environment["DPS_LOCAL_N_PREDICT"] = "4"
    assert count() == 4
    assert count("-n", "2") == 2


def test_show_says_where_each_value_comes_from(program: Program, file: Path) -> None:
    file.write_text('# mine\ntemp = 0.5\ngamma = "entropy:cap=1"\n\n[serve]\nprofile = ["a.json", "b.json"]\n')
    program.environment["DPS_LOCAL_TOP_K"] = "7"
    shown = shown_settings(program)
    assert shown["temp"] == ("0.5", "config.toml, line 2")
    assert shown["gamma"] == ("entropy:cap=1", "config.toml, line 3")
    assert shown["serve.profile"] == (["a.json", "b.json"], "config.toml, line 6")
    assert shown["top-k"] == ("7", "$DPS_LOCAL_TOP_K")
    assert "generate.temp" not in shown
    assert shown["min-p"] == (0.05, "default")
    assert "temp                   0.5" in program("config", "show").stdout


def test_a_wrong_file_names_the_line_and_the_nearest_key(program: Program, file: Path) -> None:
    for text, said in {
        "temp = 0.5\n\nctx-sice = 512\n": ", line 3: ctx-sice: there is no such setting: did you mean ctx-size?",
        "[chat]\nhistroy = false\n": ", line 2: chat.histroy: there is no such setting: did you mean chat.history?",
        "temp = 'hot'\n": ", line 1: temp: ",
        "[chat]\n\n'history' = 'perhaps'\n": ", line 3: chat.history: ",
        "zzz = 1\n": ", line 1: zzz: there is no such setting: `dps-local config show` lists them",
        "[model]\nx = 1\n": ", line 2: model.x: there is no such setting",
        "temp = \n": " is not TOML: Invalid value (at line 1, column 8)",
    }.items():
        file.write_text(text)
        line = program.fails("models", "list")
        assert line.startswith(f"error: {file}{said}"), line
    assert program("config", "path").stdout == f"{file}\n"


def test_set_and_unset_leave_the_rest_as_it_is(program: Program, file: Path) -> None:
    file.parent.rmdir()
    for key, value in {"temp": "0.3", "chat.history": "false", "model": "smollm2-135m", "serve.port": "9000"}.items():
        assert program("config", "set", key, value).returncode == 0
    assert file.read_text() == (
        'temp = 0.3\nmodel = "smollm2-135m"\n\n[chat]\nhistory = false\n\n[serve]\nport = 9000\n'
    )
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.write_text(f"# mine\n{file.read_text()}")
    assert program("config", "set", "temp", "0.7").returncode == 0
    assert program("config", "set", "chat.history", "true").returncode == 0
    assert program("config", "unset", "model").returncode == 0
    kept = "# mine\ntemp = 0.7\n\n[chat]\nhistory = true\n\n[serve]\nport = 9000\n"
    assert file.read_text() == kept
    assert program.fails("config", "unset", "model") == f"error: model is not set in {file}"
    assert program.fails("config", "set", "temp", "hot").startswith("error: temp: ")
    assert program.fails("config", "set", "tempp", "1") == "error: tempp: there is no such setting: did you mean temp?"
    assert file.read_text() == kept
    file.write_text("serve.profile = [\n'a']\n")
    assert "takes several lines" in program.fails("config", "unset", "serve.profile")


@settings(deadline=None)
@given(st.sampled_from(["profile", "map", "serve.host"]), st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_what_is_set_is_what_is_read(key: str, text: str) -> None:
    value = f"z{text}"  # or else it may be a number
    file = SettingsFile(KNOWN, "temp = 0.5\n[score]\n").with_value(key, value)
    assert file.values == {"temp": "0.5", key: value}
    assert file.without(key).values == {"temp": "0.5"}


def test_a_value_is_refused_before_it_is_written() -> None:
    file = SettingsFile(KNOWN, "")
    with pytest.raises(SettingsError, match=r"^beta: "):
        file.with_value("beta", "7")
