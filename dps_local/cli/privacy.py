"""`dps-local privacy`, and `privacy wipe`."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from dps_local.cli.options import JsonOption, YesOption, not_empty
from dps_local.cli.terminal import terminal
from dps_local.drawing.text import counted
from dps_local.errors import ProfileError
from dps_local.privacy import Traces, private_files
from dps_local.prompting.profile import read_profile

DAY = 24 * 3600  # seconds

privacy_app = typer.Typer(
    invoke_without_command=True, help="What the program has of you on this computer, and how to remove it."
)


@privacy_app.callback()
def privacy(context: typer.Context, as_json: JsonOption = False) -> None:
    """List every file that the program has of you: what it is, its size, who may read it, and its age."""
    if context.invoked_subcommand:
        return
    files = private_files()
    if as_json:
        terminal.json([file.as_json() for file in files])
        return
    now = time.time()
    rows = [
        [str(f.path), f.kind, f"{f.bytes:,}", f"{f.mode:04o}", f"{max(0, now - f.modified) / DAY:.0f} d"] for f in files
    ]
    terminal.table(["file", "kind", "bytes", "mode", "age"], rows)


@privacy_app.command("wipe")
def wipe(
    profile: Annotated[
        str, typer.Option("--profile", "-p", callback=not_empty, help="The profile, whose file may be gone already.")
    ],
    yes: YesOption = False,
) -> None:
    """Remove all that was made of a profile: head maps, scores, slopes, what the model read, and its conversations.

    The history of what was typed goes, too, as it does not tell people apart. The profile stays where it is yours.
    """
    path = _path(profile)
    traces = Traces.of(path)
    kinds = Counter(file.kind for file in traces.files)
    rows = [[kind, counted(n, "file")] for kind, n in sorted(kinds.items())]
    rows += [[f"conversation {c.id}", c.title] for c in traces.conversations]
    if not rows:
        terminal.notice("there is nothing of this profile")
        return
    if not yes:
        terminal.table(["what", ""], rows)
        terminal.ask_for_yes("Remove all of this for good?")
    traces.remove()
    removed = counted(len(traces.files), "file"), counted(len(traces.conversations), "conversation")
    stays = f"; the profile itself stays: {path}" if path.exists() else ""
    terminal.notice(f"removed {' and '.join(removed)}{stays}")


def _path(name: str) -> Path:
    """Return where a profile lies, or lay; raises ProfileError where there neither is one nor anything made of it."""
    try:
        return read_profile(name)[0].resolve()
    except ProfileError:
        path = Path(name).expanduser().resolve()
        if not Traces.of(path):
            raise
        return path
