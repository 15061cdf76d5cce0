"""Where the user's settings lie, and what the program remembers of its use; the cache, which may go, has its own."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from dps_local.errors import StorageError
from dps_local.system.cache import chosen


def config_file() -> Path:
    """Return the file of settings: `$DPS_LOCAL_CONFIG` if that is set, otherwise in the platform's config folder."""
    return chosen("DPS_LOCAL_CONFIG", platformdirs.user_config_path("dps-local") / "config.toml")


def profile_file() -> Path:
    """Return the profile that `dps-local init` makes."""
    return config_file().with_name("me.json")


def state_root() -> Path:
    """Return where what is remembered lies: `$DPS_LOCAL_STATE` if that is set, otherwise the platform's folder."""
    return chosen("DPS_LOCAL_STATE", platformdirs.user_state_path("dps-local"))


def history_file() -> Path:
    """Return the file of what was typed in chats."""
    return state_root() / "history"


def data_root() -> Path:
    """Return where what cannot be made again lies: `$DPS_LOCAL_DATA` if that is set, or the platform's folder."""
    return chosen("DPS_LOCAL_DATA", platformdirs.user_data_path("dps-local"))


def private_folder(folder: Path) -> Path:
    """Make a folder that its owner alone can read, mode 0700, where it is missing."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageError(f"cannot make the folder {exc.filename or folder}: {exc.strerror or exc}") from exc
    return folder
