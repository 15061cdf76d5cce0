"""The commands of the program, as click has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Command = Any  # of click, which typer brings along under another name


def commands_of(group: Command, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Yield each command under its names in a row, those of groups too."""
    for name, command in group.commands.items():
        path = (*before, name)
        yield from commands_of(command, path) if hasattr(command, "commands") else [(path, command)]
