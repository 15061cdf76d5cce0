"""A harvest: what came from where, and the progress of reading it."""

from __future__ import annotations

from pathlib import Path

import pytest
from letters import MARA, TEXT, TOM, letter, mbox

from dps_local.errors import DataError
from dps_local.importing.cleaning import Rules
from dps_local.importing.harvest import Row, find_person, read_sources
from dps_local.importing.mail import Mail
from dps_local.importing.meter import metered

INA = "Ina Roth <ina@roth.example>"
ME = "mara@lind.example"


@pytest.fixture
def mailbox(tmp_path: Path) -> Path:
    path = tmp_path / "all.mbox"
    path.write_bytes(
        mbox(
            letter(),
            letter("No."),
            letter("Come over on Sunday, please.", date="Sun, 9 Mar 2025 10:12:00 +0100"),
            letter("Not mine.", sender=INA, to=MARA),
        )
    )
    return path


def test_a_row_says_what_one_source_gave(mailbox: Path) -> None:
    harvest = read_sources([(mailbox, Mail())], [ME], Rules()).harvest()
    assert harvest.rows == [Row(mailbox, "mail", found=3, kept=2, first="2025-03-04", last="2025-03-09")]
    assert harvest.dropped == {"by others": 1, "too short": 1}
    assert [item.output for item in harvest.items] == [TEXT, "Come over on Sunday, please."]


def test_the_person_is_found_across_sources(mailbox: Path, tmp_path: Path) -> None:
    (tmp_path / "list.mbox").write_bytes(mbox(*(letter(sender=who, to="l@x.example") for who in (MARA, TOM))))
    assert find_person([(mailbox, Mail()), (tmp_path / "list.mbox", Mail())]) == [ME]


def test_a_source_without_a_word_of_the_person_is_an_error(mailbox: Path, tmp_path: Path) -> None:
    (tmp_path / "ina.eml").write_bytes(letter(sender=INA))
    with pytest.raises(
        DataError, match=r"nothing in .*ina.eml is by 'mara@lind.example', but by 'ina@roth.example': 1"
    ):
        read_sources([(mailbox, Mail()), (tmp_path / "ina.eml", Mail())], [ME], Rules())


def test_progress_begins_at_nothing_and_ends_at_all(mailbox: Path) -> None:
    seen: list[tuple[int, int]] = []
    with metered(lambda done, total: seen.append((done, total))):
        read_sources([(mailbox, Mail())], [ME], Rules())
    size = mailbox.stat().st_size
    assert seen[0] == (0, size)
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_cleaning_counts_texts(mailbox: Path) -> None:
    reading = read_sources([(mailbox, Mail())], [ME], Rules())
    seen: list[tuple[int, int]] = []
    with metered(lambda done, total: seen.append((done, total))):
        reading.harvest()
    assert seen == [(done, 4) for done in range(5)]  # each of two is compared, and masked
