"""`Outcome`: what a treatment makes of a query: likelihoods, an answer and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dps_local.chat.turn import Turn
from dps_local.evaluation import answer_metrics
from dps_local.evaluation.answer_generator import AnswerGenerator
from dps_local.evaluation.likelihood import Likelihood
from dps_local.evaluation.prompted_query import PromptedQuery
from dps_local.evaluation.treatment import UNSTEERED, Treatment

MIN_TIMED_TOKENS = 4  # of an answer, for its time to say something


@dataclass
class Answer:
    """An answer, as in `Record`. token_ms: None for one that is too short."""

    text: str
    values: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    token_ms: float | None = None


@dataclass
class Outcome:
    """What a treatment makes of a query: likelihoods, as in `Record`, and the answers that were drawn."""

    nll: tuple[float, ...] = ()
    values: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)


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
            turns = generator.answers(prompted.question, prompted.request(treatment.prompt_kind), treatment)
            by_key[treatment.key].answers = [_answer(prompted, treatment, likelihood, turn) for turn in turns]
        for outcome in by_key.values():
            _add_time_ratios(outcome, by_key[UNSTEERED.key])
    return [by_key[treatment.key] for treatment in treatments]


def _add_likelihoods(
    prompted: PromptedQuery, treatments: Sequence[Treatment], likelihood: Likelihood, outcomes: Sequence[Outcome]
) -> None:
    prompts = prompted.prompts(treatments)
    gold, *options = (likelihood.losses(treatments, prompts, target) for target in prompted.targets)
    for i, outcome in enumerate(outcomes):
        outcome.nll = tuple(map(float, gold[i].mean(axis=0)))
        if prompted.n_end:
            outcome.values["end_nll"] = float(gold[i][-prompted.n_end :, 0].sum())
        if options:
            best = int(np.argmin([losses[i][:, 0].mean() for losses in options]))
            _add_choice(prompted, prompted.options[best], "likelihood", outcome)


def _add_choice(prompted: PromptedQuery, option: str, by: str, outcome: Outcome | Answer) -> None:
    """Note the option that a treatment leads to, by its likelihood or by its answer."""
    gold = prompted.query.output
    if prompted.prompter.task.kind == "number":
        outcome.values[f"mae_{by}"] = abs(float(option) - float(gold))
    else:
        outcome.labels |= {"gold": gold, by: option}


def _answer(prompted: PromptedQuery, treatment: Treatment, likelihood: Likelihood, turn: Turn) -> Answer:
    text = turn.text.strip()
    answer = Answer(text, _text_metrics(prompted, text))
    ids = turn.ids
    answer.values |= {"answer_tokens": len(ids), "answer_ended": float(turn.stop in ("eog", "stop"))}
    _add_choice_of_answer(prompted, answer)
    if ids:
        plain = [token.p_plain for token in turn.tokens if token.p_plain is not None]
        # where more than the second stream was changed, the plain model's probabilities are not known yet
        known = plain and treatment.vectors is None
        loss = -float(np.mean(np.log(plain))) if known else likelihood.plain_loss(prompted.prompts([treatment]), ids)
        answer.values["answer_nll"] = loss
    if len(ids) >= MIN_TIMED_TOKENS:
        answer.token_ms = turn.timings.token_ms
    return answer


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


def _add_choice_of_answer(prompted: PromptedQuery, answer: Answer) -> None:
    """Note which option or number an answer means."""
    task = prompted.prompter.task
    if task.kind == "choice":
        i = answer_metrics.choice_of(answer.text, prompted.options)
        _add_choice(prompted, prompted.options[i] if i >= 0 else "", "answer", answer)
    elif task.kind == "number" and task.scale:
        number = answer_metrics.number_or_worst(answer.text, float(prompted.query.output), task.scale)
        _add_choice(prompted, str(number), "answer", answer)


def _add_time_ratios(outcome: Outcome, plain: Outcome) -> None:
    times = [answer.token_ms for answer in plain.answers if answer.token_ms]
    for answer in outcome.answers:
        if answer.token_ms and times:
            answer.values["time"] = answer.token_ms / float(np.mean(times))
