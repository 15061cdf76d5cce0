"""`dps-local profile`: the door of its commands."""

from __future__ import annotations

import typer

from dps_local.cli.profile_import import import_profile

profile_app = typer.Typer(no_args_is_help=True, help="Make a profile of what you have already written.")
profile_app.command("import")(import_profile)
