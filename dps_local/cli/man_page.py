"""The man page, made of the commands themselves; `dps-local man` prints it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import typer

import dps_local
from dps_local.cli.command_tree import Command, commands_of
from dps_local.cli.terminal import terminal


def man(context: typer.Context) -> None:
    """Print the man page: `dps-local man > ~/.local/share/man/man1/dps-local.1` lets `man dps-local` find it."""
    terminal.write("\n".join(man_page(context.find_root().command)) + "\n")


def man_page(program: Command) -> Iterator[str]:
    """Yield the lines of the page, in troff with the macros of man(7)."""
    name = "dps-local"
    yield f'.TH DPS-LOCAL 1 "" "{name} {dps_local.__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text('steer a local model to write as you do')}"
    yield ".SH SYNOPSIS"
    yield f".B {_text(name)}"
    yield ".I command"
    yield ".RI [ options ]"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(program.help)
    for path, command in commands_of(program):
        yield f".SH {_text(' '.join([name, *path]).upper())}"
        yield from _usage(" ".join([name, *path]), command)
        yield from _paragraphs(command.help)
        yield from _options(command)
    yield from _files()


def _usage(name: str, command: Command) -> Iterator[str]:
    pieces = command.collect_usage_pieces(typer.Context(command))
    yield f".B {_text(name)}"
    yield _text(" ".join(pieces))
    yield ".PP"


def _options(command: Command) -> Iterator[str]:
    context = typer.Context(command)
    for parameter in command.params:
        if not (record := parameter.get_help_record(context)) and not getattr(parameter, "help", ""):
            continue
        names, text = record or (parameter.make_metavar(context), parameter.help)
        yield ".TP"
        yield f".B {_text(names)}"
        yield _text(text or "") or "\\&"


def _files() -> Iterator[str]:
    yield ".SH FILES"
    yield ".TP"
    yield f".I {_text('config.toml')}"
    yield _text("Settings; dps-local config path prints where it lies, DPS_LOCAL_CONFIG names another.")
    yield ".SH ENVIRONMENT"
    yield _text("DPS_LOCAL_NAME stands for the option --name that many commands share, such as DPS_LOCAL_MODEL.")


def _paragraphs(text: str | None) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", (text or "").strip()):
        yield _text(" ".join(paragraph.split()))
        yield ".PP"


def _text(text: str) -> str:
    """Text as troff takes it: no command, and hyphens that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    text = re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", text)
    return re.sub(r"^\.", "\\&.", " ".join(text.split()))
