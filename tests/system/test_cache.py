"""The cache folder is its owner's: closed to others where it is the platform's, left alone where it was chosen."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from dps_local.system import cache


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The platform's cache folder for dps-local, not made yet."""
    monkeypatch.delenv("DPS_LOCAL_CACHE", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda app: tmp_path / app)
    return tmp_path / "dps-local"


def open_folder(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o755)  # as mkdir with the usual umask
    return path


def test_it_is_made_for_its_owner_alone(own: Path) -> None:
    assert cache.make("maps") == own / "maps"
    assert (mode(own), mode(own / "maps")) == (0o700, 0o700)


def test_an_open_one_that_an_older_version_made_is_closed(own: Path) -> None:
    open_folder(own)
    cache.make("maps")
    assert mode(own) == 0o700


def test_one_that_was_chosen_stays_as_it_is(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = open_folder(tmp_path / "shared")
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(shared))
    assert cache.make("maps") == shared / "maps"
    assert (mode(shared), mode(shared / "maps")) == (0o755, 0o700)
    assert not own.exists()


def test_a_chosen_one_that_is_missing_is_made_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "a" / "cache"))
    cache.make("maps")
    assert mode(tmp_path / "a" / "cache") == 0o700


def test_what_a_link_leads_to_stays_as_it_is(own: Path, tmp_path: Path) -> None:
    shared = open_folder(tmp_path / "shared")
    own.symlink_to(shared)
    cache.make("maps")
    assert (mode(shared), mode(shared / "maps")) == (0o755, 0o700)


def test_another_users_stays_as_it_is(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_folder(own)
    monkeypatch.setattr(os, "getuid", lambda: own.stat().st_uid + 1)
    cache.make("maps")
    assert mode(own) == 0o755


def test_the_home_folder_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DPS_LOCAL_CACHE", "~/cache")
    assert cache.make("maps") == tmp_path / "cache" / "maps"
