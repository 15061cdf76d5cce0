"""`dps-local config`: `show`, `path`, `set` and `unset`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dps_local.cli.options import JsonOption
from dps_local.cli.settings import Setting, SettingsFile, known_settings
from dps_local.cli.terminal import decode_argument, terminal
from dps_local.system.folders import config_file

config_app = typer.Typer(no_args_is_help=True, help="Settings: options that are set for good, in a file.")
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Such as model, temp or chat.history.")]


def settings_of(context: typer.Context) -> SettingsFile:
    return SettingsFile(known_settings(context.find_root().command))


@config_app.command("show")
def show(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show each setting, its value, and where that comes from: the environment, the file, or the program."""
    file = settings_of(context)
    rows = [_row(file, setting) for key, setting in file.known.items() if not setting.special or key in file.values]
    if as_json:
        terminal.json({"path": str(file.path), "settings": rows})
        return
    columns = [[row["key"], _shown(row["value"]), row["from"]] for row in rows]
    terminal.table(["setting", "value", "from"], columns)


def _row(file: SettingsFile, setting: Setting) -> dict[str, Any]:
    if setting.variable:
        value = setting.option.value_from_envvar(None)
        return {"key": setting.key, "value": value, "from": f"${setting.variable}"}
    if setting.key in file.values:
        where = f"{file.path.name}, line {line}" if (line := file.line(setting.key)) else file.path.name
        return {"key": setting.key, "value": file.values[setting.key], "from": where}
    return {"key": setting.key, "value": _plain(setting.option.default), "from": "default"}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | bool | int | float | list) else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


@config_app.command("path")
def path() -> None:
    """Print where the file lies; DPS_LOCAL_CONFIG names another."""
    terminal.write(f"{config_file()}\n")


@config_app.command("set")
def set_value(
    context: typer.Context, key: KeyArgument, value: Annotated[str, typer.Argument(help="As the option takes it.")]
) -> None:
    """Set a key, in the file."""
    file = settings_of(context).with_value(key, decode_argument(value))
    file.save()
    terminal.notice(f"{key} is set in {file.path}")


@config_app.command("unset")
def unset(context: typer.Context, key: KeyArgument) -> None:
    """Take a key out of the file."""
    file = settings_of(context).without(key)
    file.save()
    terminal.notice(f"{key} is no longer set in {file.path}")
