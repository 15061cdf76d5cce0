from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from priors import PRIOR, assert_same

import dps_local
from dps_local.engine.identity import Identity
from dps_local.maps.prior import Prior
from dps_local.maps.shipped_priors import PATTERN, shipped_priors

SHIPPED = sorted((Path(__file__).parents[2] / "models" / "priors").glob(PATTERN))
TINY = Identity("0123456789abcdef" * 4, "1" * 64)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of priors of a package that was installed elsewhere."""
    monkeypatch.setattr(dps_local, "__path__", [str(tmp_path), *dps_local.__path__])
    (tmp_path / "models" / "priors").mkdir(parents=True)
    return tmp_path / "models" / "priors"


def test_priors_of_a_model_are_found_by_its_fingerprint(folder: Path) -> None:
    assert shipped_priors(TINY) == []
    replace(PRIOR, writing="reviews").save(folder / "b.prior.gguf")
    PRIOR.save(folder / "a.prior.gguf")
    replace(PRIOR, fingerprint="f" * 64).save(folder / "c.prior.gguf")
    replace(PRIOR, metadata="2" * 64).save(folder / "d.prior.gguf")  # the same weights with another tokenizer
    mail, reviews = shipped_priors(TINY)
    assert_same(mail, PRIOR)
    assert reviews.writing == "reviews"


def test_a_damaged_file_is_passed_over(folder: Path) -> None:
    PRIOR.save(folder / "b.prior.gguf")
    whole = (folder / "b.prior.gguf").read_bytes()
    (folder / "a.prior.gguf").write_bytes(whole[: len(whole) // 2])
    (folder / "c.prior.gguf").write_bytes(b"")
    (folder / "README.md").write_text("not a prior")
    assert [prior.writing for prior in shipped_priors(TINY)] == ["mail"]


@pytest.mark.parametrize("path", SHIPPED, ids=[path.name for path in SHIPPED])
def test_every_prior_that_ships_is_whole_and_says_whose_texts_it_is_made_of(path: Path) -> None:
    prior = Prior.load(path)
    assert prior.writing
    assert prior.source
    assert prior.licence
    assert prior.people >= 3
    assert path.stat().st_size < 4e6  # of each model that ships; 20 of them make a large package
