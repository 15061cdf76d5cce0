"""Secrets: each kind is found wherever it stands, and what only looks like one is not."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secrets_planted import NO_SECRETS, SECRETS

from dps_local.errors import MissingPackageError
from dps_local.importing import secrets
from dps_local.importing.secrets import check_installed, secret_kind


@pytest.mark.parametrize("number", range(len(SECRETS)))
def test_a_secret_is_found_anywhere_in_a_text(number: int) -> None:
    secret, kind = list(SECRETS.items())[number]
    for text in (
        secret,
        f"Hi Tom,\n\n{secret}\n\nCheers, Mara",
        f"here ({secret}) it is",
        f"{'word ' * 2000}\n{secret}",
    ):
        assert secret_kind(text) == kind


@pytest.mark.parametrize("text", NO_SECRETS)
def test_what_only_looks_like_a_secret_is_none(text: str) -> None:
    assert secret_kind(text) == ""


@given(st.text(max_size=200))
def test_no_text_is_too_odd(text: str) -> None:
    secret_kind(text)


PIECES = [
    "password ",
    "password is ",
    "1 ",
    "4111 ",
    "AB12",
    "Aa1",
    "DE89 3704 0044 0532 0130 ",
    "eyJa.",
    "aws key ",
    "://a:",
]


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_texts_take_no_longer_than_a_moment(piece: str) -> None:
    secret_kind("")
    started = time.process_time()
    secret_kind((piece * 100_000)[:100_000])
    assert time.process_time() - started < 4


@pytest.mark.parametrize("library", ["stdnum", "phonenumbers", "detect_secrets.plugins.aws"])
def test_a_missing_library_is_one_line_that_says_what_to_install(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    secrets._detectors.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingPackageError, match=r"pip install 'dps-local\[import\]'"):
        check_installed()
