"""What Tab completes in a shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import Program

from dps_local.cli.completion import complete_map, complete_model, complete_profile


def completed(program: Program, line: str) -> list[str]:
    """What bash is told at the end of a line, by way of what typer installs."""
    program.environment |= {"_DPS_LOCAL_COMPLETE": "complete_bash", "COMP_WORDS": line}
    program.environment["COMP_CWORD"] = str(line.count(" "))
    result = program()
    assert result.stderr == ""
    return result.stdout.splitlines()


def test_a_shell_completes_commands_options_and_names(program: Program) -> None:
    assert completed(program, "dps-local ge") == ["generate"]
    assert completed(program, "dps-local chat --mark") == ["--markdown"]
    assert completed(program, "dps-local chat --markdown n") == ["never"]
    assert completed(program, "dps-local chat -m smol") == ["smollm2-135m"]
    assert completed(program, "dps-local models pull smol") == ["smollm2-135m"]
    assert completed(program, "dps-local profile show id") == ["idris"]


def test_files_that_go_with_an_option_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine.json", "mine.txt", "model.gguf", "mine.dps.gguf", ".hidden.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "ada.json").write_text("")
    monkeypatch.chdir(tmp_path)
    assert complete_profile("m") == ["mara", "mine.json", "more/"]
    assert complete_profile("more/") == ["more/ada.json"]
    assert complete_profile(f"{tmp_path}/mi") == [f"{tmp_path}/mine.json"]
    assert complete_profile(".") == [".hidden.json"]
    assert complete_map("") == ["mine.dps.gguf", "more/"]
    assert complete_model("mine") == ["mine.dps.gguf"]
    assert complete_model("mod") == ["model.gguf"]
    assert complete_profile("nowhere/") == []


def test_a_wrong_settings_file_breaks_no_completion(program: Program, environment: dict[str, str]) -> None:
    file = Path(environment["DPS_LOCAL_CONFIG"])
    file.parent.mkdir()
    file.write_text("nonsense = 1\n")
    assert completed(program, "dps-local chat -m smol") == ["smollm2-135m"]
