"""`dps-local bake`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dps_local.cli.terminal import terminal
from dps_local.engine import registry, self_test
from dps_local.maps.baking import bake as bake_map


def bake(
    model: Annotated[str, typer.Argument(help="A registry name or the path of a GGUF.")],
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="The head map to put into it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new GGUF.")],
) -> None:
    """Write a copy of a model that carries a head map in its metadata. Stock llama.cpp loads it as before."""
    source = registry.resolve(model)
    self_test.check(terminal.notice, offload=False)
    bake_map(source, map_file, output)
    terminal.notice(f"wrote {output}: chat with it by `dps-local chat -m {output}`")
