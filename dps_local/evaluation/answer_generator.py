"""`AnswerGenerator`: answers to queries, through the session that chat uses."""

from __future__ import annotations

from dps_local.chat.session import Session
from dps_local.chat.turn import Turn
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.evaluation.treatment import Treatment


class AnswerGenerator:
    """Generates answers with one chat. n_predict: tokens of an answer, at most."""

    def __init__(self, chat: Session, sampling: Sampling, n_predict: int) -> None:
        self.chat, self.sampling, self.n_predict = chat, sampling, n_predict
        self._last: tuple[str, str] | None = None

    def answer(self, question: str, request: str, treatment: Treatment) -> Turn:
        """Answer a request; of the same one again, the prompt is not read again. question: its part without profile."""
        self.chat.recall = lambda _, __: (request, ())
        steering, sampler = treatment.steering, Sampler(self.sampling)
        if self._last == (question, request):
            list(self.chat.regenerate(self.n_predict, steering=steering, sampler=sampler))
        else:
            self.chat.clear()
            self._last = None
            list(self.chat.ask(question, self.n_predict, steering=steering, sampler=sampler))
            self._last = question, request
        return self.chat.turns[-1]
