"""The pages: their links lead somewhere, and the map of the code names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("models/*.md"), *ROOT.glob("patches/*.md"), *ROOT.glob("dps_local/**/*.md")]
)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_map_of_the_code_names_what_is_there() -> None:
    text = (ROOT / "dps_local" / "README.md").read_text()
    files = re.findall(r"`((?:\w+/)+\w+\.py|\w+\.py)`", text)
    assert len(files) > 15
    assert [file for file in files if not (ROOT / "dps_local" / file).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_tests_that_pages_name_are_there(page: Path) -> None:
    files = set(re.findall(r"tests/[\w/]+\.(?:py|sh)", page.read_text()))
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []
