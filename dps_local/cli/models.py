"""`dps-local models list`, `pull`, `path` and `verify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dps_local.cli.completion import complete_model
from dps_local.cli.loading import download
from dps_local.cli.options import JsonOption, OfflineOption
from dps_local.cli.terminal import terminal
from dps_local.engine import registry

models_app = typer.Typer(no_args_is_help=True, help="List, download and check models.")
NameArgument = Annotated[
    str, typer.Argument(autocompletion=complete_model, help="A name from `dps-local models list`.")
]


@models_app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List the models that can be downloaded by name."""
    entries = registry.load().values()
    if as_json:
        terminal.json({"models": [asdict(e) | {"downloaded": registry.is_downloaded(e.name)} for e in entries]})
        return
    columns = ["name", "size", "here", "licence", "good for"]
    terminal.table(columns, [_model_row(e) for e in entries])


def _model_row(entry: registry.Entry) -> list[str]:
    name = f"{entry.name} (default)" if entry.default else entry.name
    size = f"{entry.size / 1e9:.2f} GB" if entry.size else "?"
    return [name, size, "✓" if registry.is_downloaded(entry.name) else "", entry.licence, entry.good_for]


@models_app.command("pull")
def pull(
    name: Annotated[
        str | None, typer.Argument(autocompletion=complete_model, help="Default: the default model.")
    ] = None,
    offline: OfflineOption = False,
) -> None:
    """Download a model and check it; an interrupted download goes on where it stopped."""
    terminal.write(f"{download(name or registry.default_name(), offline)}\n")


@models_app.command("path")
def path(name: NameArgument) -> None:
    """Print where a downloaded model lies."""
    terminal.write(f"{registry.path(name)}\n")


@models_app.command("verify")
def verify(name: NameArgument) -> None:
    """Check a downloaded model's SHA-256 anew."""
    registry.verify(name)
    terminal.notice(f"{name} is as it should be")
