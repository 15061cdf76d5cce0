"""A person's steps from their own history on tiny models: kept, held out, calibrated, and begun with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import TinyModel

from dps_local.engine.model import Model
from dps_local.maps.prior import Prior
from dps_local.maps.quadratic_error import QuadraticError
from dps_local.maps.step_evidence import NO_KIND
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring import first_map as first_map_module
from dps_local.scoring import own_slopes, own_steps
from dps_local.scoring.calibrate import TEMPERATURES
from dps_local.scoring.first_map import first_map
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_slopes import HeadSlopes
from dps_local.scoring.held_out_losses import HeldOutLosses
from dps_local.scoring.mixture import mixture
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.own_slopes import OwnSlopes
from dps_local.scoring.own_steps import OwnSteps
from dps_local.scoring.people import population_of
from dps_local.scoring.personal_step import PersonalStep
from dps_local.scoring.posterior import own_alone
from dps_local.scoring.scoring import score
from dps_local.scoring.slopes import Slopes
from dps_local.steering.steering import Steering, amplified

SAID = ["Cheers, all sorted.", "No need to rush, love.", "Right then! Off to the allotment.", "Plums, mostly."]
HISTORY = tuple(HistoryItem(f"Jar {i}. {SAID[i % 4]}", f"What is in it, {i}?") for i in range(8))
OPTIONS = ScoringOptions(target_tokens=12, n_threads=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tiny_model: TinyModel, load: Callable[[Path], Model]) -> Model:
    return load(tiny_model("llama"))


def prompter(model: Model, name: str = "Mara", history: tuple[HistoryItem, ...] = HISTORY) -> Prompter:
    return Prompter.of(model, Profile(name=name, history=history), n_ctx=512, profile_tokens=160)


def prior(model: Model, writing: str, letters: str) -> Prior:
    """Return the prior of three people who write the same letter over and over, each at another length."""
    people = []
    for n in (3, 5, 7):
        history = tuple(HistoryItem(f"{letter * (4 + n)} {letter * n}", "Write.") for letter in letters)
        own = OwnSlopes(prompter(model, f"{writing} {n}", history), n_samples=2, n_threads=1)
        people.append(own.of(list(own.texts)))
    return Prior(
        model=model.name,
        architecture=model.architecture,
        **asdict(model.identity),
        scope="generated",
        writing=writing,
        source="made up",
        licence="none",
        people=3,
        texts=12,
        tokens=sum(person.n_tokens for person in people),
        nll=1.0,
        n_heads=tuple(model.n_heads),
        population=population_of(people),
        error=QuadraticError(*(np.array(part, np.float32) for part in ([0.2, 0.8], [0.0, -0.3], [0.01, 0.1]))),
    )


@pytest.fixture
def priors(model: Model) -> list[Prior]:
    return [prior(model, "vowels", "aeio"), prior(model, "digits", "2478")]


def equal(a: Slopes, b: Slopes) -> bool:
    exact = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("slopes", "tokens", "samples"))
    return exact and np.allclose(a.nll, b.nll)  # which is kept in F32


@pytest.fixture
def no_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`no_passes()`: from now on, nothing may be differentiated."""
    return lambda: monkeypatch.setattr(own_slopes, "HeadSlopes", None)


# --- slopes of history items


def test_slopes_are_those_of_the_texts_that_the_prompter_makes(model: Model) -> None:
    own = OwnSlopes(prompter(model), n_threads=1)
    texts = list(own.texts.values())
    with HeadSlopes(model, 512, n_threads=1) as head_slopes:
        expected = head_slopes.of(texts)
    found = own.of(list(own.texts))
    assert found.tokens.tolist() == [len(text.target) for text in texts]
    assert np.abs(found.slopes - expected.slopes).max() < 1e-2 * np.abs(expected.slopes).max()


def test_each_prompt_goes_on_from_one_before_it_until_there_is_no_room(model: Model) -> None:
    windows = prompter(model).windows()
    assert windows[0] == range(0)
    restarts = 0
    for before, window in pairwise(windows):
        assert window.stop == before.stop + 1
        restarts += window.start > before.start
    assert 0 < restarts < len(windows) - 1
    own = OwnSlopes(prompter(model), n_threads=1)
    for i, window in enumerate(windows[1:], 1):
        shown = model.detokenize(own.texts[i].prompt)
        assert [f"Jar {k}." in shown for k in range(i)] == [k in window for k in range(i)]


def test_a_text_ends_with_its_end_unless_it_is_cut(model: Model) -> None:
    long = (*HISTORY, HistoryItem("On and on. " * 40, "Go on."))
    p = prompter(model, history=long)
    own = OwnSlopes(p, n_threads=1)
    assert all(text.target[-len(p.end) :] == p.end for i, text in own.texts.items() if i < 8)
    assert len(own.texts[8].target) == 128  # a quarter of the context


def test_what_was_measured_is_kept_and_not_measured_again(model: Model, no_passes: Callable[[], None]) -> None:
    own = OwnSlopes(prompter(model), n_samples=1, n_threads=1)
    assert own.store.load(own.texts[6]) is None
    found = own.of([5, 6, 7])
    no_passes()
    again = OwnSlopes(prompter(model), n_samples=1, n_threads=1)
    assert equal(again.of([5, 6, 7]), found)
    known = again.store.load(own.texts[6])
    assert known
    assert np.array_equal(known.slopes, found.slopes[1:2])
    with pytest.raises(TypeError):  # item 4 is new
        again.of([4, 5])


def test_a_damaged_file_is_measured_again(model: Model) -> None:
    own = OwnSlopes(prompter(model), n_threads=1)
    found = own.of([7])
    path = own.store.path(own.texts[7])
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert own.store.load(own.texts[7]) is None
    assert np.allclose(own.of([7]).slopes, found.slopes, rtol=1e-3)


# --- steps


def test_a_step_without_an_item_is_that_of_the_other_items(model: Model, priors: list[Prior]) -> None:
    steps = OwnSteps.measured(prompter(model), priors, n_threads=1)
    assert steps
    others = [i for i in steps.items if i != 3]
    own = OwnSlopes(prompter(model), n_threads=1).of(others)
    expected = mixture([p.population for p in priors], own).posterior.step
    assert np.allclose(steps.step(without=3).step, expected)
    assert not np.allclose(steps.step().step, expected)


def test_without_priors_own_text_of_six_items_is_enough(model: Model) -> None:
    steps = OwnSteps.measured(prompter(model), [], n_threads=1)
    assert steps
    assert np.allclose(steps.step().step, own_alone(steps.own).step)
    assert OwnSteps.measured(prompter(model, history=HISTORY[:5]), [], n_threads=1) is None


def test_of_a_long_history_the_newest_items_are_measured(model: Model, priors: list[Prior]) -> None:
    assert inspect.signature(OwnSteps.measured).parameters["newest"].default == own_steps.NEWEST == 200
    steps = OwnSteps.measured(prompter(model), priors, 3, n_threads=1)
    assert steps
    assert steps.items == [5, 6, 7]


def test_weights_have_length_1_and_promise_a_gain_less_its_error(model: Model, priors: list[Prior]) -> None:
    steps = OwnSteps.measured(prompter(model), priors, n_threads=1)
    assert steps
    step = steps.step()
    fisher, ridged = step.posterior.fisher.matrix, step.posterior.fisher.ridged
    weights = step.weights.ravel().astype(np.float64)
    assert weights @ fisher @ weights == pytest.approx(1, rel=1e-4)
    delta = 0.3 * weights
    quadratic = step.step @ ridged @ delta - delta @ fisher @ delta / 2
    assert step.expected(0.3)[0] == pytest.approx(quadratic - 0.05, rel=1e-3)


def test_a_step_of_few_heads_scales_no_others(model: Model, priors: list[Prior]) -> None:
    steps = OwnSteps.measured(prompter(model), priors, k=3, n_threads=1)
    assert steps
    step = steps.step()
    assert np.count_nonzero(step.weights) == 3
    assert {tuple(map(int, head)) for head in np.argwhere(step.weights)} == set(step.heads(3))


@pytest.mark.parametrize("kind", ["lfm2", "mamba", "gemma4"])
def test_an_architecture_without_slopes_is_left_to_ablation(
    tiny_model: TinyModel, load: Callable[[Path], Model], kind: str
) -> None:
    notices: list[str] = []
    assert OwnSteps.measured(prompter(load(tiny_model(kind))), [], n_threads=1, notice=notices.append) is None
    assert len(notices) == 1
    assert notices[0].endswith("; heads are scored by ablation alone")


# --- maps


def test_a_first_map_needs_a_prior(model: Model) -> None:
    assert first_map(prompter(model), OPTIONS) is None


def test_a_first_map_steers_by_the_step_of_the_newest_items(
    model: Model, priors: list[Prior], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(first_map_module, "shipped_priors", lambda _: priors)
    head_map = first_map(prompter(model), replace(OPTIONS, examples=6))
    assert head_map
    own = OwnSlopes(prompter(model), n_threads=1).of([2, 3, 4, 5, 6, 7])
    step = PersonalStep.of(model, priors, own)
    assert np.allclose(head_map.weights, step.weights)
    assert head_map.step
    assert head_map.step.texts == 6
    assert head_map.step.kinds == ("vowels", "digits", NO_KIND)
    assert sum(head_map.step.shares) == pytest.approx(1)
    assert head_map.gamma == (step.gamma if head_map.step.helps else 0)
    assert head_map.mode == "amplify"
    assert np.isnan(head_map.pcs).all()
    head_map.save(tmp_path / "first.dps.gguf")
    again = type(head_map).load(tmp_path / "first.dps.gguf")
    assert again.step
    assert again.step.shares == pytest.approx(head_map.step.shares, rel=1e-5)  # kept in F32
    assert replace(again.step, shares=()) == replace(head_map.step, shares=())
    assert again.slope is not None
    assert np.array_equal(again.slope, step.slopes)


def test_scoring_amplifies_by_own_text_alone_where_there_is_no_prior(model: Model) -> None:
    head_map = score(model, prompter(model), OPTIONS, priors=[])
    alone = OwnSteps.measured(prompter(model), [], n_threads=1)
    assert alone
    assert np.allclose(head_map.weights, alone.step().weights)
    assert head_map.calibration
    assert head_map.calibration.probability is None
    assert head_map.step
    assert head_map.step.kinds == ()
    assert np.isfinite(head_map.pcs).all()


def test_scoring_adds_what_others_tell_to_what_was_measured(model: Model) -> None:
    """Everyone writes as the person does."""
    people = [OwnSlopes(prompter(model, history=HISTORY[i : i + 4]), n_samples=2, n_threads=1) for i in range(3)]
    made = prior(model, "jars", "aeio")
    same = replace(made, population=population_of([own.of(list(own.texts)) for own in people]))
    head_map = score(model, prompter(model), OPTIONS, priors=[same])
    steps = OwnSteps.measured(prompter(model), [same], n_threads=1)
    assert steps
    assert steps.step().shares[0] > 0.5
    assert np.allclose(head_map.weights, steps.step().weights)
    assert head_map.calibration
    assert head_map.calibration.probability is not None
    assert head_map.step
    assert np.isfinite(head_map.pcs).all()


def test_each_item_calibrates_the_step_of_all_others(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that ablation scores, too; and the gain of their ends is that of their last tokens."""
    losses, tried = HeldOutLosses.by_token, list[tuple[ScoredText, Sequence[Steering], NDArray[np.float64]]]()

    def recorded(held_out: HeldOutLosses, text: ScoredText, steerings: Sequence[Steering]) -> NDArray[np.float64]:
        tried.append((text, steerings, losses(held_out, text, steerings)))
        return tried[-1][2]

    monkeypatch.setattr(HeldOutLosses, "by_token", recorded)
    p = prompter(model)
    head_map = score(model, p, OPTIONS, priors=[])
    own = OwnSlopes(p, n_samples=2, n_threads=1)
    numbers = list(own.texts)
    assert head_map.calibration
    assert len(tried) == head_map.calibration.n == len(numbers) == head_map.examples
    for i, (text, steerings, _) in zip(numbers, tried, strict=True):
        assert text.target == own.texts[i].target
        others = own.of([k for k in numbers if k != i])
        weights = PersonalStep.of(model, [], others).weights
        assert [s.gamma.value for s in steerings] == [0, 0.2, 0.4, 0.8]
        assert np.allclose(steerings[1].scales, amplified(weights), atol=1e-5)
    ends = [table[:, -len(p.end) :].sum(axis=1) for text, _, table in tried if text.target[-len(p.end) :] == p.end]
    assert len(ends) == len(numbers)
    found = head_map.calibration
    best, plain = TEMPERATURES.index(found.temperature), TEMPERATURES.index(found.plain_temperature)
    k = [0, 0.2, 0.4, 0.8].index(found.best.gamma)
    assert found.end == pytest.approx(np.mean([end[0, plain] - end[k, best] for end in ends]))
