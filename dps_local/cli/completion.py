"""What a shell completes at Tab: names of models and profiles, and files that go with them."""

from __future__ import annotations

from pathlib import Path

from dps_local.engine import registry
from dps_local.errors import RegistryError
from dps_local.prompting.profile import examples


def complete_model(incomplete: str) -> list[str]:
    try:
        names = list(registry.load())
    except RegistryError:
        names = []
    return [*_beginning(names, incomplete), *_files(incomplete, ".gguf")]


def complete_profile(incomplete: str) -> list[str]:
    return [*_beginning(examples(), incomplete), *_files(incomplete, ".json")]


def complete_map(incomplete: str) -> list[str]:
    return _files(incomplete, ".dps.gguf")


def _beginning(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _files(incomplete: str, suffix: str) -> list[str]:
    """Return folders, and files of a kind, whose paths begin so."""
    folder, slash, name = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder or slash or ".").expanduser().iterdir())
    except OSError:
        return []
    hidden = name.startswith(".")
    fitting = [file for file in found if file.name.startswith(name) and (hidden or not file.name.startswith("."))]
    return [
        f"{folder}{slash}{file.name}{'/' if file.is_dir() else ''}"
        for file in fitting
        if file.is_dir() or file.name.endswith(suffix)
    ]
