"""`dps-local feedback list`, `rm` and `export`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dps_local.cli.options import JsonOption, ProfileOption, YesOption
from dps_local.cli.terminal import terminal
from dps_local.drawing.text import counted, shortened
from dps_local.errors import CommandError
from dps_local.prompting.feedback import feedback_of, labelled_answers, preference_pairs, remove_feedback
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.system.files import atomic_write

feedback_app = typer.Typer(no_args_is_help=True, help="Answers that you kept, edited or preferred in chats.")
PersonOption = Annotated[str, ProfileOption]
ROOM = 60  # letters of a text in a list


class Format(StrEnum):
    trl = "trl"
    kto = "kto"


FORMATS: dict[Format, Callable[[Iterable[HistoryItem]], Iterator[dict[str, Any]]]] = {
    Format.trl: preference_pairs,
    Format.kto: labelled_answers,
}


@feedback_app.command("list")
def list_feedback(profile: PersonOption, as_json: JsonOption = False) -> None:
    """List what a profile has of its chats, oldest first."""
    items = feedback_of(Profile.load(profile))
    if as_json:
        terminal.json([{"number": n, **item.as_json()} for n, item in enumerate(items, 1)])
    else:
        _show(dict(enumerate(items, 1)))


@feedback_app.command("rm")
def remove(
    numbers: Annotated[list[int], typer.Argument(metavar="NUMBER...", help="As `dps-local feedback list` has them.")],
    profile: PersonOption,
    yes: YesOption = False,
) -> None:
    """Remove answers from a profile."""
    user = Profile.load(profile)
    path, known = user.own_file, dict(enumerate(feedback_of(user), 1))
    if missing := [n for n in numbers if n not in known]:
        raise CommandError(f"there is no number {missing[0]}: `dps-local feedback list -p {profile}` has the numbers")
    chosen = {n: known[n] for n in sorted(set(numbers))}
    if not yes:
        _show(chosen)
        terminal.ask_for_yes("Remove them for good?")
    remove_feedback(path, chosen.values())
    terminal.notice(f"removed {counted(len(chosen), 'answer')} from {path}")


@feedback_app.command("export")
def export(
    profile: PersonOption,
    format_: Annotated[
        Format,
        typer.Option(
            "--format", help="Pairs (prompt, chosen, rejected), or single answers with a label, as TRL reads."
        ),
    ] = Format.trl,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file. Default: stdout.")] = None,
    yes: YesOption = False,
) -> None:
    """Write answers as JSON Lines, to train or tune another model with."""
    rows = list(FORMATS[format_](feedback_of(Profile.load(profile))))
    if output is None:
        for row in rows:
            terminal.json(row)
    else:
        terminal.ask_to_overwrite(output, yes)
        with atomic_write(output) as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    terminal.notice(f"{counted(len(rows), 'line')}{f' in {output}' if output else ''}")


def _show(items: dict[int, HistoryItem]) -> None:
    rows = [
        [str(n), item.date, item.kind, *map(_line, (item.input, item.output, item.rejected))]
        for n, item in items.items()
    ]
    terminal.table(["", "date", "kind", "question", "answer", "rejected"], rows)


def _line(text: str) -> str:
    return shortened(" ".join(text.split()), ROOM)
