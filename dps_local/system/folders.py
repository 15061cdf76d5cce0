"""Where the user's settings lie, and what the program remembers of its use; the cache, which may go, has its own."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from dps_local.errors import StorageError


def config_file() -> Path:
    """Return the file of settings: `$DPS_LOCAL_CONFIG` if that is set, otherwise in the platform's config folder."""
    chosen = os.environ.get("DPS_LOCAL_CONFIG")
    return Path(chosen).expanduser() if chosen else platformdirs.user_config_path("dps-local") / "config.toml"


def state_folder() -> Path:
    """Return the folder of what is remembered, mode 0700, made if missing."""
    return private_folder(state_root())


def state_root() -> Path:
    """Return where that lies: `$DPS_LOCAL_STATE` if that is set, otherwise the platform's state folder."""
    chosen = os.environ.get("DPS_LOCAL_STATE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_state_path("dps-local")


def private_folder(folder: Path) -> Path:
    """Make a folder that its owner alone can read, where it is missing."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageError(f"cannot make the folder {exc.filename or folder}: {exc.strerror or exc}") from exc
    return folder


def data_folder() -> Path:
    """Return the folder of what cannot be made again, mode 0700, made if missing."""
    return private_folder(data_root())


def data_root() -> Path:
    """Return where that lies: `$DPS_LOCAL_DATA` if that is set, otherwise the platform's data folder."""
    chosen = os.environ.get("DPS_LOCAL_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("dps-local")
