"""`dps-local profile`: `import`, `show`, `check`, `merge` and `edit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dps_local.cli.completion import complete_profile
from dps_local.cli.editing import edit_file
from dps_local.cli.loading import load_model
from dps_local.cli.options import JsonOption, ModelOption, ModelOptions, YesOption
from dps_local.cli.profile_import import import_profile
from dps_local.cli.terminal import terminal
from dps_local.drawing.text import counted
from dps_local.engine.model import Model
from dps_local.prompting.merging import merged
from dps_local.prompting.profile import Profile, own_file, parse_profile, read_profile
from dps_local.prompting.profile_summary import ProfileSummary, language_identifier
from dps_local.scoring.profile_warnings import profile_warnings

MOST = 5  # sources and languages in a line

profile_app = typer.Typer(no_args_is_help=True, help="Profiles: what you wrote, for a model to write as you do.")
ProfileArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE",
        autocompletion=complete_profile,
        help="A profile (JSON), or a shipped example: nell, mara, idris, odile.",
    ),
]
profile_app.command("import")(import_profile)


@profile_app.command("show")
def show(profile: ProfileArgument, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Show what a profile holds: how much of your own text, of what time, from where, in which languages.

    With --model, its tokens are counted.
    """
    user = Profile.load(profile)  # first, as its mistakes are found at once
    loaded = load_model(ModelOptions(model)) if model else None
    summary = ProfileSummary.of(user, _counter(loaded) if loaded else None, language_identifier())
    if as_json:
        terminal.json(summary.as_json() | {"model": loaded.name if loaded else None})
    else:
        terminal.table(["", ""], _rows(summary))


def _counter(model: Model) -> Callable[[str], int]:
    return lambda text: len(model.tokenize(text, special=False))


def _rows(summary: ProfileSummary) -> list[list[str]]:
    kinds = ", ".join(f"{n} {kind}" for kind, n in summary.kinds.items() if n)
    items = f"{counted(summary.items, 'item')}{f': {kinds}' * bool(kinds)}"
    own = counted(summary.words, "word")
    if summary.tokens is not None:
        own += f", {counted(summary.tokens, 'token')}"
    languages = "not known: pip install 'dps-local[import]' tells them"
    rows = [
        ["name", summary.name],
        ["history", items],
        ["of your own", own],
        ["with an input", str(summary.with_input)],
        ["with a rejected answer", str(summary.with_rejected)],
        ["preferences", str(summary.preferences)],
        ["time", f"{summary.first} to {summary.last} ({counted(summary.dated, 'item')})" if summary.dated else ""],
        ["sources", _most(summary.sources)],
        ["languages", languages if summary.languages is None else _most(summary.languages)],
    ]
    return [row for row in rows if row[1] not in ("", "0")]


def _most(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:MOST])
    return f"{shown} and {len(counts) - MOST} more" if len(counts) > MOST else shown


@profile_app.command("check")
def check(profile: ProfileArgument, as_json: JsonOption = False) -> None:
    """Check a profile: what breaks its contract is an error (exit code 1), what is of no use to scoring a warning."""
    user, (path, text) = Profile.load(profile), read_profile(profile)
    warnings = profile_warnings(user, text)
    if as_json:
        terminal.json({"path": str(path), "items": len(user.history), "warnings": [vars(w) for w in warnings]})
        return
    for warning in warnings:
        terminal.write(f"{warning}\n")
    terminal.write(f"{path} is valid: {counted(len(user.history), 'item')}, {counted(len(warnings), 'warning')}\n")


@profile_app.command("merge")
def merge(
    profiles: Annotated[list[str], typer.Argument(metavar="PROFILES...", help="Profiles of one person.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the profile.")],
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make one profile of several: what comes twice once, and the oldest first where dates are known."""
    whole = merged([Profile.load(profile) for profile in profiles])
    terminal.ask_to_overwrite(output, yes)
    whole.profile.save(output)
    if as_json:
        items = len(whole.profile.history)
        terminal.json({"items": items, "duplicates": whole.duplicates, "output": str(output)})
        return
    left_out = f", {counted(whole.duplicates, 'duplicate')} left out" if whole.duplicates else ""
    terminal.notice(f"wrote {output}: {counted(len(whole.profile.history), 'item')}{left_out}")


@profile_app.command("edit")
def edit(profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A profile (JSON).")]) -> None:
    """Open a profile in your editor ($VISUAL or $EDITOR). It is replaced once what you saved is valid."""
    path = own_file(read_profile(profile)[0])
    changed = edit_file(path, parse_profile)
    terminal.notice(f"wrote {path}" if changed else f"{path} is as it was")
