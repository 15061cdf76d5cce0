"""A prior of many people: what it is made of, and that nothing is measured twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import TinyModel

from dps_local.engine.context import Context, Run
from dps_local.engine.model import Model
from dps_local.errors import DataError, ProfileError
from dps_local.maps.prior import Prior
from dps_local.maps.scored_heads import grid
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring import own_slopes
from dps_local.scoring.build_prior import build_prior
from dps_local.scoring.calibrate import TEMPERATURES
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_slopes import HeadSlopes
from dps_local.scoring.own_slopes import OwnSlopes
from dps_local.scoring.people import population_of
from dps_local.scoring.slopes import Slopes

WORDS = ("the word", "you or the other", "an inn", "my turn")
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
    assert len(measured) == 8
    by_hand = [OwnSlopes(Prompter.of(model, person, n_ctx=512), 1, 1).of([1, 2]) for person in PEOPLE]
    expected = population_of(by_hand)
    np.testing.assert_array_equal(prior.population.mu, expected.mu)
    np.testing.assert_array_equal(prior.population.lambdas, expected.lambdas)
    assert (prior.people, prior.texts, prior.tokens) == (4, 8, sum(len(text.target) for text in measured))
    assert prior.nll == pytest.approx(sum(own.nll.sum() for own in by_hand) / prior.tokens)
    assert prior.check(model.name, model.identity) == ""


@pytest.mark.usefixtures("measured")
def test_its_error_is_what_each_gains_by_the_step_of_the_others_less_the_quadratic_model(model: Model) -> None:
    """The losses are those of heads whose weights are scaled by hand, in a context of their own."""
    prior, errors = build(model), list[list[float]]()
    own = [OwnSlopes(Prompter.of(model, person, n_ctx=512), 1, 1) for person in PEOPLE]
    slopes = [one.of([1, 2]) for one in own]
    plain, steered = [], []
    for i, one in enumerate(own):
        others = population_of([part for k, part in enumerate(slopes) if k != i])
        direction = others.step / others.fisher.length(others.step)
        texts = [one.texts[1], one.texts[2]]
        along = float(slopes[i].slopes.sum(axis=0) @ direction) / slopes[i].n_tokens
        errors.append([0.2 * along - 0.02, 0.4 * along - 0.08, 0.8 * along - 0.32])
        scales = [1 + gamma * grid(model.n_heads, direction) for gamma in (0.0, 0.2, 0.4, 0.8)]
        losses = [losses_of(model, texts, np.asarray(scale, np.float32)) for scale in scales]
        plain.append(losses[0])
        steered.append(losses[1:])
    best_plain = np.array(plain)[:, np.mean(plain, axis=0).argmin()]
    at = np.mean(steered, axis=0).argmin(axis=1)
    gains = best_plain[:, None] - np.array(steered)[:, np.arange(3), at]
    expected = gains - np.array(errors)
    assert prior.error.gammas == pytest.approx([0.2, 0.4, 0.8])
    assert prior.error.means == pytest.approx(expected.mean(axis=0), abs=1e-3)
    assert prior.error.deviations == pytest.approx(expected.std(axis=0, ddof=1), abs=1e-3)


def losses_of(model: Model, texts: Sequence[ScoredText], scales: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the NLL per token at each temperature, one token at a time."""
    total, n = np.zeros(len(TEMPERATURES)), 0
    with closing(Context(model, 512)) as context:
        for text in texts:
            context.truncate(0, 0)
            context.decode([Run(0, 0, text.prompt[:-1])])
            with context.head_scales({0: scales}):
                for k, (token, target) in enumerate(
                    zip([text.prompt[-1], *text.target[:-1]], text.target, strict=True), len(text.prompt) - 1
                ):
                    logits = context.decode([Run(0, k, [token], 1)])[0].astype(np.float64)
                    for t, temperature in enumerate(TEMPERATURES):
                        total[t] += np.logaddexp.reduce(logits / temperature) - logits[target] / temperature
                    n += 1
    return total / n


def test_a_build_that_was_stopped_measures_nothing_twice(model: Model, measured: list[ScoredText]) -> None:
    def stop(done: int, _: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(model, progress=stop)
    assert len(measured) == 4
    told: list[tuple[int, int]] = []
    build(model, progress=lambda done, total: told.append((done, total)))
    assert len(measured) == 8
    assert len({(tuple(text.prompt), tuple(text.target)) for text in measured}) == 8
    assert told[0] == (0, 12)  # the texts, and the people on whom the others' step is tried
    assert told[-1] == (12, 12)
    assert told == sorted(told)
    build(model)
    assert len(measured) == 8


def test_people_of_one_item_do_not_count(model: Model, measured: list[ScoredText]) -> None:
    short = Profile(name="S", history=PEOPLE[0].history[:1])
    assert build(model, [*PEOPLE, short]).people == 4
    del measured[:]
    with pytest.raises(DataError, match=r"^a prior needs texts of 4 people or more, and there are 3: give more files$"):
        build(model, [*PEOPLE[:3], short])
    assert measured == []


def test_what_models_wrote_is_no_part_of_a_prior(model: Model, measured: list[ScoredText]) -> None:
    kept = HistoryItem("Certainly!", kind="kept")
    plain, with_kept = build(model), build(model, [replace(p, history=(*p.history, kept)) for p in PEOPLE])
    assert len(measured) == 8  # the same texts, each once
    np.testing.assert_array_equal(plain.population.mu, with_kept.population.mu)
    with pytest.raises(DataError, match="4 people or more, and there are 3"):
        build(model, [*PEOPLE[:3], Profile(name="K", history=(PEOPLE[3].history[0], kept, kept))])


def test_a_profile_that_does_not_fit_is_named(model: Model) -> None:
    long = Profile(name="Long", about="by the way " * 200, history=PEOPLE[0].history)
    with pytest.raises(ProfileError, match=r"^Long: the profile leaves no room for a request in 512 tokens$"):
        build(model, [long, *PEOPLE])
