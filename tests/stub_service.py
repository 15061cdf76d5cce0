"""A server's service that says what a test wants to be said, in place of a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from maps import synthetic

from dps_local.chat.explanation import ExplainedToken, ReplacedToken
from dps_local.chat.turn import Token, Turn
from dps_local.errors import RequestError
from dps_local.server.answer_request import AnswerRequest
from dps_local.server.app import Api
from dps_local.server.service import Finished, Service
from dps_local.server.worker import Job, Worker
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

CALIBRATION = {"gain": 0.031, "low": 0.012, "high": 0.049, "n": 12, "probability": 0.961}
EXPECTED = {"gain": 0.002, "deviation": 0.003, "probability": 0.82}
COMMAND = "dps-local score -p cat.json"


def person(mode: str | None, gamma: float, **known: Any) -> dict[str, Any]:
    nothing = {"calibration": None, "expected": None, "scored": True, "head_map": False, "score_command": COMMAND}
    return {"mode": mode, "gamma": gamma, **nothing, **known}


class StubService:
    """ada is calibrated, ben has nothing held out, cat is not scored, dot has no texts; `says` makes the pieces.

    gate: is waited for before each piece behind the first. asked: who was asked what.
    """

    def __init__(self) -> None:
        self.known = {
            "n_ctx": 512,
            "chat_template": "",
            "people": {
                "ada": person("amplify", 0.2, calibration=CALIBRATION, head_map=True),
                "ben": person("contrast", 0.0, expected=EXPECTED),
                "cat": person(None, 0.0, scored=False),
                "dot": person(None, 0.0),
            },
            "maps": {"ada": synthetic(6, 5), "ben": None, "cat": None, "dot": None},
        }
        self.gate = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.asked: list[tuple[str | None, AnswerRequest]] = []
        self.cancelled = threading.Event()
        self.says: Callable[[str | None, AnswerRequest], Sequence[str]] = lambda _, asked: ["You said ", asked.question]
        self.gate.set()

    def close(self) -> None:
        pass

    def answer(
        self, request: AnswerRequest, name: str | None, job: Job[Service]
    ) -> Generator[Token | Finished, None, None]:
        if name == "cat":
            raise RequestError(409, f"this profile is not scored with this model: run `{COMMAND}`", "model")
        self.asked.append((name, request))
        job.stop = self.cancelled.set
        turn = Turn(request.question, 0, [1], 0)
        for i, piece in enumerate(self.says(name, request)):
            while i and not job.cancelled and not self.gate.wait(0.01):
                pass
            if job.cancelled:
                return
            turn.tokens.append(Token(i, 0.5, None, 0.5, piece))
            yield turn.tokens[-1]
        turn.stop = "eog"
        gamma = request.steering.gamma or Gamma(0.2)
        steering = Steering(np.ones((1, 1), np.float32), gamma, mode="amplify")
        yield Finished(turn, 0, steering, explained(turn.tokens) if request.steering.explain else None)


def explained(tokens: Sequence[Token]) -> tuple[ExplainedToken, ...]:
    """The first token is moved by +0.4 nats, the second by -0.4 and in place of another one, the others by none."""
    other = ReplacedToken(9, " instead", 0.3, 0.2)
    shifts = [(0.4, None), (-0.4, other)] + [(0.0, None)] * len(tokens)
    return tuple(
        ExplainedToken(token.id, token.text, 0.2, 1.0, 0.2 * float(np.exp(shift)), shift, replaced)
        for token, (shift, replaced) in zip(tokens, shifts, strict=False)
    )


@contextmanager
def served(stub: StubService) -> Iterator[Api]:
    """Serve it under the name tiny, with all its people."""
    worker = Worker(lambda: cast(Service, stub))
    worker.start()
    assert worker.ready.wait(60)
    yield Api(worker, "tiny", list(stub.known["people"]))  # type: ignore[call-overload]
    worker.close()
