"""The man page: made of the commands, and clean troff."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
from program import Program
from typer.main import get_command

from dps_local.cli.app import app
from dps_local.cli.man_page import man_page

PROGRAM = get_command(app)
PAGE = "\n".join(man_page(PROGRAM)) + "\n"


def leaves(group: Any) -> list[Any]:
    return [c for one in group.commands.values() for c in (leaves(one) if hasattr(one, "commands") else [one])]


def test_every_command_and_every_option_is_on_the_page() -> None:
    headings = re.findall(r"^\.SH DPS\\-LOCAL (.+)$", PAGE, re.MULTILINE)
    assert len(headings) == len(leaves(PROGRAM))
    assert {"CHAT", "PROFILE IMPORT", "MODELS PULL", "CONFIG SHOW", "BENCH DECODE"} <= {*headings}
    for command in leaves(PROGRAM):
        for option in (name for parameter in command.params for name in parameter.opts if name.startswith("--")):
            assert option.replace("-", "\\-") in PAGE


def test_no_line_of_text_is_a_command_of_troff() -> None:
    commands = {line.split()[0] for line in PAGE.splitlines() if line.startswith((".", "'"))}
    assert commands == {".TH", ".SH", ".PP", ".TP", ".B", ".I", ".RI"}
    assert PAGE.isascii()


def test_the_program_prints_it(program: Program) -> None:
    assert program("man").stdout == PAGE


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_has_nothing_to_warn_of() -> None:
    shown = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-c"], input=PAGE, capture_output=True, text=True, timeout=60, check=True
    )
    assert shown.stderr == ""
    assert re.search(r"--ctx-size.*\n\s+Tokens of context\.", re.sub("\x1b\\[\\d+m|.\b", "", shown.stdout))


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_mandoc_has_no_error() -> None:
    lint = ["mandoc", "-T", "lint", "-W", "error"]
    assert subprocess.run(lint, input=PAGE, capture_output=True, text=True, timeout=60, check=False).stdout == ""
