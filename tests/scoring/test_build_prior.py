"""A prior of many people: what it is made of, and that nothing is measured twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TinyModel

from dps_local.engine.model import Model
from dps_local.errors import DataError, ProfileError
from dps_local.maps.prior import Prior
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring import own_slopes
from dps_local.scoring.build_prior import build_prior
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_slopes import HeadSlopes
from dps_local.scoring.own_slopes import OwnSlopes
from dps_local.scoring.people import population_of
from dps_local.scoring.slopes import Slopes

WORDS = ("the word", "you or the other", "an inn")
PEOPLE = [
    Profile(name=f"P{i}", history=tuple(HistoryItem(f"Aye {k}, {word} it is.", f"say {k}") for k in range(3)))
    for i, word in enumerate(WORDS)
]


@pytest.fixture
def model(tiny_model: TinyModel, load: Callable[[Path], Model]) -> Model:
    return load(tiny_model("llama"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[ScoredText]:
    """The texts that are measured from now on, with an empty cache."""
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path))
    measured: list[ScoredText] = []

    class Counted(HeadSlopes):
        def passes(self, texts: Sequence[ScoredText], *arguments: Any) -> Iterator[tuple[int, Slopes]]:
            measured.extend(texts)
            return super().passes(texts, *arguments)

    monkeypatch.setattr(own_slopes, "HeadSlopes", Counted)
    return measured


def build(model: Model, people: Sequence[Profile] = PEOPLE, **options: Any) -> Prior:
    about = {"writing": "mail", "source": "nobody", "licence": "CC0-1.0"}
    given: dict[str, Any] = about | options
    return build_prior(model, people, items=2, n_ctx=512, n_threads=1, **given)


def test_a_prior_is_the_population_of_the_newest_items(model: Model, measured: list[ScoredText]) -> None:
    prior = build(model)
    assert len(measured) == 6
    by_hand = [OwnSlopes(Prompter.of(model, person, n_ctx=512), 1, 1).of([1, 2]) for person in PEOPLE]
    expected = population_of(by_hand)
    np.testing.assert_array_equal(prior.population.mu, expected.mu)
    np.testing.assert_array_equal(prior.population.lambdas, expected.lambdas)
    assert (prior.people, prior.texts, prior.tokens) == (3, 6, sum(len(text.target) for text in measured))
    assert prior.nll == pytest.approx(sum(own.nll.sum() for own in by_hand) / prior.tokens)
    assert prior.check(model.name, model.identity) == ""


def test_a_build_that_was_stopped_measures_nothing_twice(model: Model, measured: list[ScoredText]) -> None:
    def stop(done: int, _: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(model, progress=stop)
    assert len(measured) == 4
    told: list[tuple[int, int]] = []
    build(model, progress=lambda done, total: told.append((done, total)))
    assert len(measured) == 6
    assert len({(tuple(text.prompt), tuple(text.target)) for text in measured}) == 6
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    assert told == sorted(told)
    build(model)
    assert len(measured) == 6


def test_people_of_one_item_do_not_count(model: Model, measured: list[ScoredText]) -> None:
    short = Profile(name="S", history=PEOPLE[0].history[:1])
    assert build(model, [*PEOPLE, short]).people == 3
    del measured[:]
    with pytest.raises(DataError, match=r"^a prior needs texts of 3 people or more, and there are 2: give more files$"):
        build(model, [*PEOPLE[:2], short])
    assert measured == []


def test_what_models_wrote_is_no_part_of_a_prior(model: Model, measured: list[ScoredText]) -> None:
    kept = HistoryItem("Certainly!", kind="kept")
    plain, with_kept = build(model), build(model, [replace(p, history=(*p.history, kept)) for p in PEOPLE])
    assert len(measured) == 6  # the same texts, each once
    np.testing.assert_array_equal(plain.population.mu, with_kept.population.mu)
    with pytest.raises(DataError, match="3 people or more, and there are 2"):
        build(model, [*PEOPLE[:2], Profile(name="K", history=(PEOPLE[2].history[0], kept, kept))])


def test_a_profile_that_does_not_fit_is_named(model: Model) -> None:
    long = Profile(name="Long", about="by the way " * 200, history=PEOPLE[0].history)
    with pytest.raises(ProfileError, match=r"^Long: the profile leaves no room for a request in 512 tokens$"):
        build(model, [long, *PEOPLE])
