"""`dps-local init`: from nothing to a steered chat, by a few questions. Each answer is kept at once, as a setting or as
the profile, so that a second run goes on where the first was left."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from dps_local.cli.config import settings_of
from dps_local.cli.loading import download
from dps_local.cli.models import list_models
from dps_local.cli.profile_import import import_profile
from dps_local.cli.remedies import explained
from dps_local.cli.settings import SettingsFile
from dps_local.cli.terminal import decode_argument, terminal
from dps_local.engine import registry
from dps_local.errors import DpsError, SettingsError
from dps_local.prompting.profile import Profile
from dps_local.system.folders import private_folder, profile_file

SAVE = "chat.save"  # whether conversations are kept


def init(context: typer.Context) -> None:
    """Set everything up, by six questions at most, and begin to chat. Enter takes what stands in brackets.

    What is set already is not asked again; `dps-local config` shows and changes it.
    """
    if not terminal.interactive:
        raise SettingsError(
            "init asks questions, and nobody can answer here: run `dps-local models pull`, then `dps-local profile "
            "import SOURCE -o me.json`, then `dps-local chat -p me.json`"
        )
    if "model" not in settings_of(context).values:
        _keep(context, "model", _choose_model())
    if "profile" not in settings_of(context).values and (profile := _make_profile(profile_file())):
        _keep(context, "profile", str(profile))
    file = settings_of(context)
    if SAVE in file.known and SAVE not in file.values:
        saved = terminal.confirm("Keep conversations on this computer, for you alone?", default=True)
        _keep(context, SAVE, str(saved).lower())
    _show(settings_of(context))
    if terminal.confirm("Begin to chat?", default=True):
        context.find_root().command.main(["chat"], prog_name="dps-local", standalone_mode=False)
    else:
        terminal.notice("`dps-local chat` begins a chat with these settings")


def _keep(context: typer.Context, key: str, value: str) -> None:
    settings_of(context).with_value(key, value).save()


def _show(file: SettingsFile) -> None:
    for key in ("model", "profile", SAVE):
        if key in file.values:
            terminal.notice(f"{key} = {file.values[key]}")
    terminal.notice(f"these settings are in {file.path}")


def _choose_model() -> str:
    """Return a model that is here, after it was downloaded if need be."""
    entries = registry.load()
    list_models()
    while True:
        name = decode_argument(
            terminal.ask("Model (it is downloaded if need be), or the path of a GGUF", registry.default_name())
        )
        try:
            if name in entries and not registry.is_downloaded(name):
                download(name, offline=False)
            path = registry.resolve(name)
        except DpsError as exc:
            terminal.error(explained(exc))
            continue
        return name if name in entries else str(path.absolute())


def _make_profile(path: Path) -> Path | None:
    """Return the profile that is there, or that a person's texts or wishes make; None where they give neither."""
    if path.exists():  # an import that was done by hand
        return path
    name = decode_argument(terminal.ask("Your name", ""))
    sources = decode_argument(terminal.ask("Your sent mail, chats or notes, as files or folders (Enter: none)", ""))
    private_folder(path.parent)
    if sources:
        _import(_paths(sources), name, path)
        return path
    wishes = decode_argument(terminal.ask("How answers should be, such as: short; no emoji (Enter: as they come)", ""))
    if preferences := tuple(filter(None, map(str.strip, wishes.split(";")))):
        Profile(name=name, preferences=preferences).save(path)
        return path
    terminal.notice("there is no profile, so answers are the model's own: `dps-local init` asks again")
    return None


def _paths(text: str) -> list[str]:
    """Return the paths of a line: one that may have spaces, or several as a shell has them."""
    try:
        return [text] if Path(text).expanduser().exists() else shlex.split(text)
    except ValueError:  # a quote is not closed
        return [text]


def _import(sources: list[str], name: str, path: Path) -> None:
    """Import a person's texts; where that fails, say how to go on."""
    try:
        import_profile([Path(source).expanduser() for source in sources], path, name=name)
    except DpsError:
        command = shlex.join(["dps-local", "profile", "import", *sources, "-o", str(path)])
        terminal.notice(f"once `{command}` works, perhaps with more options, `dps-local init` goes on from there")
        raise
