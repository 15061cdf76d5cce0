"""`AnswerGenerator`: answers to queries, through the session that chat uses."""

from __future__ import annotations

from dataclasses import replace

from dps_local.chat.session import Session
from dps_local.chat.turn import Turn
from dps_local.engine.sampler import Sampling
from dps_local.evaluation.treatment import Treatment
from dps_local.prompting.prompt import Request


class AnswerGenerator:
    """Generates answers with one chat. n_predict: tokens of an answer, at most. samples: answers to a request."""

    def __init__(self, chat: Session, sampling: Sampling, n_predict: int, samples: int) -> None:
        self.chat, self.n_predict = chat, n_predict
        self.samplings = [replace(sampling, seed=sampling.seed + i) for i in range(samples)]
        self._last: tuple[str, Request] | None = None

    def answers(self, question: str, request: Request, treatment: Treatment) -> list[Turn]:
        """Answer a request several times; its prompt is read once, for all treatments that come one after the other.

        The draws are the same for all treatments. question: the part of the request without profile.
        """
        self.chat.recall = lambda _, __: request
        if self._last != (question, request):
            self.chat.clear()
            self._last = None
            list(self.chat.ask(question, 0, steering=None))
            self._last = question, request
        turns = []
        with self.chat.full.context.control_vector(treatment.vectors):
            for sampling in self.samplings:
                sampler = treatment.sampler(sampling)
                list(self.chat.regenerate(self.n_predict, steering=treatment.steering, sampler=sampler))
                turns.append(self.chat.turns[-1])
        return turns
