"""`Outcome`: what a treatment makes of a query: likelihoods, an answer and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dps_local.evaluation import answer_metrics
from dps_local.evaluation.answer_generator import AnswerGenerator
from dps_local.evaluation.likelihood import Likelihood
from dps_local.evaluation.prompted_query import PromptedQuery
from dps_local.evaluation.treatment import UNSTEERED, Treatment

MIN_TIMED_TOKENS = 4  # of an answer, for its time to say something


@dataclass
class Outcome:
    """What a treatment makes of a query, as in `Record`. token_ms: of the answer, None for one that is too short."""

    nll: tuple[float, ...] = ()
    values: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    answer: str | None = None
    token_ms: float | None = None


def outcomes_of(
    prompted: PromptedQuery, treatments: Sequence[Treatment], likelihood: Likelihood, generator: AnswerGenerator | None
) -> list[Outcome]:
    """Return the outcome of each treatment of a query; without a generator, likelihoods alone.

    Equal treatments are computed once.
    """
    distinct = {treatment.key: treatment for treatment in [UNSTEERED, *treatments]}
    by_key = {key: Outcome() for key in distinct}
    _add_likelihoods(prompted, list(distinct.values()), likelihood, list(by_key.values()))
    if generator:
        in_order = sorted(distinct.values(), key=lambda treatment: str(treatment.prompt_kind))  # a prompt is read once
        for treatment in in_order:
            _add_answer(prompted, treatment, likelihood, generator, by_key[treatment.key])
        for outcome in by_key.values():
            _add_time_ratio(outcome, by_key[UNSTEERED.key])
    return [by_key[treatment.key] for treatment in treatments]


def _add_likelihoods(
    prompted: PromptedQuery, treatments: Sequence[Treatment], likelihood: Likelihood, outcomes: Sequence[Outcome]
) -> None:
    prompts = prompted.prompts(treatments)
    gold, *options = (likelihood.losses(treatments, prompts, target) for target in prompted.targets)
    for i, outcome in enumerate(outcomes):
        outcome.nll = tuple(map(float, gold[i]))
        if options:
            best = int(np.argmin([losses[i][0] for losses in options]))
            _add_choice(prompted, prompted.options[best], "likelihood", outcome)


def _add_choice(prompted: PromptedQuery, option: str, by: str, outcome: Outcome) -> None:
    """Note the option that a treatment leads to, by its likelihood or by its answer."""
    gold = prompted.query.output
    if prompted.prompter.task.kind == "number":
        outcome.values[f"mae_{by}"] = abs(float(option) - float(gold))
    else:
        outcome.labels |= {"gold": gold, by: option}


def _add_answer(
    prompted: PromptedQuery,
    treatment: Treatment,
    likelihood: Likelihood,
    generator: AnswerGenerator,
    outcome: Outcome,
) -> None:
    turn = generator.answer(prompted.question, prompted.request(treatment.prompt_kind), treatment)
    outcome.answer = turn.text.strip()
    outcome.values |= _text_metrics(prompted, outcome.answer)
    _add_choice_of_answer(prompted, outcome)
    if ids := turn.ids:
        plain = [token.p_plain for token in turn.tokens if token.p_plain is not None]
        # where heads were amplified, the plain model's probabilities are not known yet
        loss = -float(np.mean(np.log(plain))) if plain else likelihood.plain_loss(prompted.prompts([treatment]), ids)
        outcome.values["answer_nll"] = loss
    if len(ids) >= MIN_TIMED_TOKENS:
        outcome.token_ms = turn.timings.token_ms


def _text_metrics(prompted: PromptedQuery, answer: str) -> dict[str, float]:
    query = prompted.query
    values = {
        "repetition": answer_metrics.repetition(answer),
        "length": answer_metrics.length_ratio(answer, query.output),
    }
    if prompted.prompter.task.kind == "text":
        name, value = answer_metrics.meteor(answer, query.references)
        values |= answer_metrics.rouge(answer, query.references) | {name: value}
    return values


def _add_choice_of_answer(prompted: PromptedQuery, outcome: Outcome) -> None:
    """Note which option or number an answer means."""
    task, answer = prompted.prompter.task, outcome.answer or ""
    if task.kind == "choice":
        i = answer_metrics.choice_of(answer, prompted.options)
        _add_choice(prompted, prompted.options[i] if i >= 0 else "", "answer", outcome)
    elif task.kind == "number" and task.scale:
        number = answer_metrics.number_or_worst(answer, float(prompted.query.output), task.scale)
        _add_choice(prompted, str(number), "answer", outcome)


def _add_time_ratio(outcome: Outcome, plain: Outcome) -> None:
    if outcome.token_ms and plain.token_ms:
        outcome.values["time"] = outcome.token_ms / plain.token_ms
