"""Steps of an evaluation's users: whose texts have a part in them, and that they are those of the posterior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from opened import shared
from tiny import TinyModel

from dps_local.engine.model import Model
from dps_local.errors import DataError
from dps_local.evaluation.benchmarks import TASKS
from dps_local.evaluation.condition import STEP_METHODS, Condition, Method
from dps_local.evaluation.dataset import User
from dps_local.evaluation.head_map_store import HeadMapStore, halves
from dps_local.evaluation.task_prompter import TaskPrompter, task_prompter
from dps_local.evaluation.treatment import treatment_of
from dps_local.maps.scored_heads import Scores, grid
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.own_slopes import OwnSlopes
from dps_local.scoring.people import population_of
from dps_local.scoring.posterior import own_alone, posterior
from dps_local.scoring.slopes import Slopes
from dps_local.steering.mixing import Gamma

NAMES = ("Ada", "Bob", "Cyd", "Dot", "Eve", "Fay")
HALF = halves(NAMES, 0)
SAME, OTHERS = ([name for name in NAMES if HALF[name] == half] for half in ("choose", "confirm"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tiny_model: TinyModel) -> Model:
    return shared(tiny_model())


def store(model: Model, folder: Path, changed: str = "") -> HeadMapStore:
    """Return a store of six users; changed: who wrote other texts."""
    users, prompters, template = dict[str, User](), dict[str, TaskPrompter](), ChatTemplate(model)
    for name in NAMES:
        end = "o la la" if name == changed else "it is"
        items = tuple({"title": f"{name} {i} {end}", "text": f"What {name} saw, {i}."} for i in range(3))
        users[name] = User(name, "news_headline", items, (), ())
        prompters[name] = task_prompter(model, template, users[name], TASKS["news_headline"], 120, 768, 4)
    options = ScoringOptions(examples=2, target_tokens=6, n_threads=1)
    return HeadMapStore(users, prompters, options, "user", 2, folder)


def weights(model: Model, folder: Path, method: Method, user: str, changed: str = "") -> Scores:
    treatment = treatment_of(Condition(method, Gamma(0.25)), user, store(model, folder, changed), model)
    assert treatment.steering
    assert treatment.steering.gamma == Gamma(1.0 if method == "prior-contrast" else 0.25)
    return treatment.steering.scales - 1


def test_steps_are_those_of_the_posterior(model: Model, tmp_path: Path) -> None:
    prompters, me = store(model, tmp_path).prompters, SAME[0]

    def measured(name: str) -> Slopes:
        own = OwnSlopes(prompters[name], 1, 1)
        return own.of(list(own.texts))

    population = population_of([measured(name) for name in OTHERS])
    expected = {
        "prior": posterior(population),
        "prior-own": posterior(population, measured(me)),
        "own": own_alone(measured(me)),
    }
    for method, found in expected.items():
        direction = found.step / (found.fisher.length(found.step) or 1.0)
        assert weights(model, tmp_path, method, me) == pytest.approx(  # type: ignore[arg-type]
            grid(model.n_heads, direction), abs=1e-4
        )
    backwards = weights(model, tmp_path, "prior-contrast", me)
    assert backwards == pytest.approx(-0.25 * weights(model, tmp_path, "prior", me), abs=1e-6)


def test_a_step_of_few_heads_is_as_long_as_one_of_all(model: Model, tmp_path: Path) -> None:
    """So that they are compared at equal KL: δᵀFδ is 1 of both, with F of the same texts."""
    kept, me = store(model, tmp_path), SAME[0]
    fisher = population_of([kept.steps._measured(kept.prompters[name]) for name in OTHERS]).fisher
    for heads in (None, 1, 3):
        treatment = treatment_of(Condition("prior", Gamma(0.25), heads), me, kept, model)
        assert treatment.steering
        step = np.array([treatment.steering.scales[head] - 1 for head in model.heads()])
        assert np.count_nonzero(step) == (heads or len(step))
        assert fisher.length(step) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("method", STEP_METHODS)
def test_only_those_have_a_part_in_a_step_who_may(model: Model, tmp_path: Path, method: Method) -> None:
    me, before = SAME[0], weights(model, tmp_path, method, SAME[0])
    whose = [name for name in NAMES if not np.allclose(weights(model, tmp_path, method, me, name), before, atol=1e-6)]
    own = {"prior": 0, "prior-contrast": 0, "prior-own": [me], "own": [me], "another": 1}[method]
    expected_others = [] if method == "own" else OTHERS
    assert [name for name in whose if name in OTHERS] == expected_others
    same = [name for name in whose if name in SAME]
    assert same == own if isinstance(own, list) else len(same) == own
    assert method != "another" or me not in same


def test_two_others_are_too_few(model: Model, tmp_path: Path) -> None:
    few = store(model, tmp_path)
    few = replace(few, prompters={name: few.prompters[name] for name in (*SAME, *OTHERS[:2])})
    few.half = {name: HALF[name] for name in few.prompters}
    with pytest.raises(DataError, match=r"^a prior needs texts of 3 people or more, and there are 2: give more files$"):
        treatment_of(Condition("prior", Gamma(0.2)), SAME[0], few, model)
