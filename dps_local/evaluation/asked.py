"""`Asked`: one query of one user: the prompts it makes, and what each way of answering makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from dps_local.chat.session import Session
from dps_local.chat.turn import Turn
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.evaluation import metrics
from dps_local.evaluation.dataset import Query
from dps_local.evaluation.likelihood import Likelihood
from dps_local.evaluation.task_prompt import TaskPrompter
from dps_local.evaluation.way import PLAIN, Shown, Way
from dps_local.scoring.forked_sequences import Text

FEWEST_TIMED = 4  # tokens of an answer, for its time to say something


@dataclass
class Result:
    """What a way makes of a query, as in `Record`. token_ms: of the answer, None for one that is too short."""

    nll: tuple[float, ...] = ()
    values: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    answer: str | None = None
    token_ms: float | None = None


@dataclass(frozen=True)
class Asked:
    """A query of the user of a prompter. n_target: tokens of a gold text that count, at most."""

    prompter: TaskPrompter
    query: Query
    n_target: int

    @cached_property
    def question(self) -> str:
        """The input; one that leaves little room for the profile and an answer loses its end."""
        return self.prompter.cut(self.query.input, (self.prompter.n_ctx - self.prompter.budget) // 2)

    def request(self, shown: Shown) -> str:
        """Return what the user's turn says."""
        if shown == "question":
            return self.question
        prompter = self.prompter if shown == "profile" else replace(self.prompter, most=shown)
        return prompter.request(self.question)[0]

    @cached_property
    def options(self) -> Sequence[str]:
        return self.query.options or self.prompter.task.options_of(self.query.input)

    @cached_property
    def targets(self) -> list[list[int]]:
        """Tokens of the gold text, then those of the options, each with its end."""
        return [self.prompter.target(text, self.n_target) for text in (self.query.output, *self.options)]

    def prompts(self, ways: Iterable[Way]) -> dict[Shown, list[int]]:
        """Return the tokens up to where an answer starts, of each prompt that these ways are shown."""
        shown: set[Shown] = {"profile", "question", *(way.shown for way in ways)}
        return {s: self.prompter.prompt("", self.request(s)) for s in shown}

    def texts(self, ways: Iterable[Way], n_answer: int) -> list[Text]:
        """Return what `Likelihood` may be asked for: each prompt with targets, or an answer of n_answer tokens."""
        longest = max([n_answer, *map(len, self.targets)])
        return [Text(prompt, [0] * longest) for prompt in self.prompts(ways).values()]


class Answers:
    """Generates answers with one chat. n_predict: tokens of an answer, at most."""

    def __init__(self, chat: Session, sampling: Sampling, n_predict: int) -> None:
        self.chat, self.sampling, self.n_predict = chat, sampling, n_predict
        self._last: tuple[str, str] | None = None

    def answer(self, question: str, request: str, way: Way) -> Turn:
        """Answer a request; of the same one again, the prompt is not read again. question: its part without profile."""
        self.chat.recall = lambda _, __: (request, ())
        self.chat.steering, self.chat.sampler = way.steering, Sampler(self.sampling)
        if self._last == (question, request):
            list(self.chat.regenerate(self.n_predict))
        else:
            self.chat.clear()
            self._last = None
            list(self.chat.ask(question, self.n_predict))
            self._last = question, request
        return self.chat.turns[-1]


def results(asked: Asked, ways: Sequence[Way], likelihood: Likelihood, answers: Answers | None) -> list[Result]:
    """Return what each way makes of a query; without `answers`, likelihoods alone. Equal ways are computed once."""
    distinct = {way.key: way for way in [PLAIN, *ways]}
    found = {key: Result() for key in distinct}
    _likelihoods(asked, list(distinct.values()), likelihood, list(found.values()))
    if answers:
        for key, way in sorted(distinct.items(), key=lambda item: str(item[1].shown)):  # one prompt after the other
            _answer(asked, way, likelihood, answers, found[key])
        for result in found.values():
            _compare(result, found[PLAIN.key])
    return [found[way.key] for way in ways]


def _likelihoods(asked: Asked, ways: Sequence[Way], likelihood: Likelihood, found: Sequence[Result]) -> None:
    prompts = asked.prompts(ways)
    gold, *options = (likelihood.losses(ways, prompts, target) for target in asked.targets)
    for i, result in enumerate(found):
        result.nll = tuple(map(float, gold[i]))
        if options:
            best = int(np.argmin([losses[i][0] for losses in options]))
            _take(asked, asked.options[best], "likelihood", result)


def _take(asked: Asked, option: str, by: str, result: Result) -> None:
    """Note the option that a way takes, by its likelihood or by its answer."""
    gold = asked.query.output
    if asked.prompter.task.kind == "number":
        result.values[f"mae_{by}"] = abs(float(option) - float(gold))
    else:
        result.labels |= {"gold": gold, by: option}


def _answer(asked: Asked, way: Way, likelihood: Likelihood, answers: Answers, result: Result) -> None:
    turn = answers.answer(asked.question, asked.request(way.shown), way)
    result.answer = turn.text.strip()
    result.values |= _quality(asked, result.answer)
    _understand(asked, result)
    if ids := turn.ids:
        plain = [token.p_plain for token in turn.tokens if token.p_plain is not None]
        loss = -float(np.mean(np.log(plain))) if plain else _plain_loss(asked, way, likelihood, ids)
        result.values["answer_nll"] = loss
    if len(ids) >= FEWEST_TIMED:
        result.token_ms = turn.timings.token_ms


def _quality(asked: Asked, answer: str) -> dict[str, float]:
    values = {
        "repetition": metrics.repetition(answer),
        "length": metrics.length_ratio(answer, asked.query.output),
    }
    if asked.prompter.task.kind == "text":
        name, value = metrics.meteor(answer, asked.query.references)
        values |= metrics.rouge(answer, asked.query.references) | {name: value}
    return values


def _understand(asked: Asked, result: Result) -> None:
    """Note which option or number an answer means."""
    task, answer = asked.prompter.task, result.answer or ""
    if task.kind == "choice":
        i = metrics.choice_of(answer, asked.options)
        _take(asked, asked.options[i] if i >= 0 else "", "answer", result)
    elif task.kind == "number" and task.scale:
        number = metrics.number_or_worst(answer, float(asked.query.output), task.scale)
        _take(asked, str(number), "answer", result)


def _plain_loss(asked: Asked, way: Way, likelihood: Likelihood, ids: list[int]) -> float:
    """Return the mean NLL of an answer's tokens in the plain model; where heads were amplified, nobody knows it yet."""
    return float(likelihood.losses([PLAIN], asked.prompts([way]), ids)[0][0])


def _compare(result: Result, plain: Result) -> None:
    if result.token_ms and plain.token_ms:
        result.values["time"] = result.token_ms / plain.token_ms
