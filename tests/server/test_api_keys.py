"""The file of keys: who may ask, and for whose profiles."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dps_local.errors import SettingsError
from dps_local.server.api_keys import ApiKeys


def keys(path: Path, text: str, mode: int = 0o600) -> ApiKeys:
    path.write_text(text)
    path.chmod(mode)
    return ApiKeys.load(path, {"ada", "ben"})


def test_a_key_may_use_the_profiles_behind_it_or_all(tmp_path: Path) -> None:
    read = keys(tmp_path / "keys", "one ada\n\n  two\nthree ben ada\n")
    assert read.profiles("one") == frozenset(["ada"])
    assert read.profiles("two") is None
    assert read.profiles("three") == frozenset(["ada", "ben"])
    for wrong in ("", "on", "one ada", "ada", "öne", "\udcff"):
        with pytest.raises(KeyError):
            read.profiles(wrong)


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "there is no key in"), ("\n \n", "there is no key in"), ("one ada\ntwo eve\n", "names the profile eve")],
)
def test_a_file_without_keys_or_with_other_profiles_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        keys(tmp_path / "keys", text)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_a_file_that_others_may_read_is_refused_with_what_to_run(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingsError, match="run `chmod 600"):
        keys(tmp_path / "keys", "one\n", mode)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the keys in .*No such file"):
        ApiKeys.load(tmp_path / "none", set())
    (tmp_path / "keys").write_bytes(os.urandom(8) + b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot read the keys"):
        ApiKeys.load(tmp_path / "keys", set())
