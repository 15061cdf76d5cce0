"""Recognition: each source is of one format, or an error says what was looked for; and who the person is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from letters import letter

from dps_local.errors import DataError
from dps_local.importing.formats import FORMATS, format_of, most, names, propose_person


def test_a_source_is_recognised_or_taken_for_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(letter())
    assert format_of(tmp_path / "a.eml").name == "mail"
    (tmp_path / "b").write_text("nothing of the kind")
    assert format_of(tmp_path / "b", "mail").name == "mail"


def test_an_unknown_or_empty_source_is_an_error_that_names_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").write_bytes(b"")
    for source in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(DataError, match="nothing to import was found") as error:
            format_of(source)
        assert all(known.looked_for in str(error.value) and known.name in str(error.value) for known in FORMATS)


def test_a_source_that_is_not_there_and_a_format_that_is_none_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no "):
        format_of(tmp_path / "gone")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        format_of(Path("/dev/null"))
    with pytest.raises(DataError, match=f"no format 'fax': one of {', '.join(names())}"):
        format_of(tmp_path, "fax")


def test_names_of_formats_are_different() -> None:
    assert len(set(names())) == len(names())


A, B, C = Path("a"), Path("b"), Path("c")


@pytest.mark.parametrize(
    ("sources", "person"),
    [
        ([(A, Counter())], []),
        ([(A, Counter({"mara": 3}))], ["mara"]),
        ([(A, Counter({"mara": 3})), (B, Counter({"mara": 1, "tom": 9}))], ["mara"]),
        ([(A, Counter({"mara": 3, "tom": 5})), (B, Counter({"mara": 1, "ina": 9}))], ["mara"]),
        (
            [(A, Counter({"mara@x": 3})), (B, Counter({"Mara": 1, "Tom": 9})), (C, Counter({"Mara": 2, "Ina": 1}))],
            ["Mara", "mara@x"],
        ),
    ],
)
def test_the_person_is_proposed_where_it_is_clear(sources: list[tuple[Path, Counter[str]]], person: list[str]) -> None:
    assert propose_person(sources) == person


@pytest.mark.parametrize(
    "sources",
    [
        [(A, Counter({"mara": 3, "tom": 900}))],
        [(A, Counter({"mara": 3, "tom": 1})), (B, Counter({"mara": 1, "tom": 9}))],
        [(B, Counter({"mara": 3})), (A, Counter({"ina": 3, "tom": 900}))],
    ],
)
def test_where_it_is_not_clear_the_error_names_who_wrote(sources: list[tuple[Path, Counter[str]]]) -> None:
    with pytest.raises(DataError, match=r"several people wrote in a: say who you are, with --me .*'tom': "):
        propose_person(sources)


def test_few_are_named() -> None:
    assert most(Counter({f"p{i}": 9 - i for i in range(7)})) == "'p0': 9, 'p1': 8, 'p2': 7, 'p3': 6, 'p4': 5, …"
