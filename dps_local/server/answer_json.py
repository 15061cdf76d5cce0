"""`AnswerJson`: an answer in OpenAI's JSON, whole or in chunks, with the names of llama.cpp's server for timings."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dps_local.chat.turn import Token
from dps_local.drawing.explanation import shift_limit
from dps_local.errors import DpsError, RequestError
from dps_local.server.answer_request import AnswerRequest
from dps_local.server.service import Finished

Json = dict[str, Any]
FINISH = {"eog": "stop", "stop": "stop", "length": "length", "context": "length", "interrupted": "length"}
LEAST_LOGPROB = -9999.0  # OpenAI's, of a token without probability
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 503: "unavailable_error"}


class AnswerJson:
    """The objects of one answer."""

    def __init__(self, request: AnswerRequest) -> None:
        self.request = request
        self._head = {
            "id": ("chatcmpl-" if request.chat else "cmpl-") + secrets.token_hex(12),
            "created": int(time.time()),
            "model": request.model,
        }

    def whole(self, tokens: Sequence[Token], end: Finished) -> Json:
        text = "".join(token.text for token in tokens)
        said = {"message": {"role": "assistant", "content": text}} if self.request.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": self._logprobs(tokens), "finish_reason": FINISH[end.turn.stop]}
        kind = "chat.completion" if self.request.chat else "text_completion"
        return {**self._head, "object": kind, "choices": [choice], "usage": usage(end), **self._extra(end)}

    def first(self) -> list[Json]:
        """Return the chunk that says who speaks; a completion has none."""
        return [self._chunk({"role": "assistant", "content": ""})] if self.request.chat else []

    def token(self, token: Token) -> Json:
        return self._chunk({"content": token.text}, [token])

    def last(self, end: Finished) -> list[Json]:
        """Return the chunk that says why the answer ended, and what was used, where that was asked for."""
        ending = self._chunk({}, finish=FINISH[end.turn.stop]) | self._extra(end)
        used = {**ending, "choices": [], "usage": usage(end)}
        return [ending, used] if self.request.usage else [ending]

    def _chunk(self, delta: Json, tokens: Sequence[Token] = (), finish: str | None = None) -> Json:
        said = {"delta": delta} if self.request.chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **said, "logprobs": self._logprobs(tokens) if tokens else None, "finish_reason": finish}
        kind = "chat.completion.chunk" if self.request.chat else "text_completion"
        return {**self._head, "object": kind, "choices": [choice]}

    def _extra(self, end: Finished) -> Json:
        extra: Json = {"timings": timings(end)}
        if end.explained is not None and (steering := end.steering):
            tokens = [{k: v for k, v in asdict(token).items() if k != "heads"} for token in end.explained]
            extra["dps"] = {"mode": steering.mode, "gamma": str(steering.gamma), "tokens": tokens}
            extra["dps"]["limit"] = shift_limit(end.explained)  # of a colour scale
        return extra

    def _logprobs(self, tokens: Sequence[Token]) -> Json | None:
        if not self.request.logprobs:
            return None
        if not self.request.chat:
            tops = [{_text(one.piece): _log(one.p) for one in reversed(token.top)} for token in tokens]
            logprobs = [_log(token.p_steered) for token in tokens]
            shown = tops if self.request.n_top else None
            return {"tokens": [token.text for token in tokens], "token_logprobs": logprobs, "top_logprobs": shown}
        content = [
            {
                **_logprob(token.text, token.text.encode(), token.p_steered),
                "top_logprobs": [_logprob(_text(one.piece), one.piece, one.p) for one in token.top],
            }
            for token in tokens
        ]
        return {"content": content, "refusal": None}


def _logprob(text: str, data: bytes, p: float | None) -> Json:
    return {"token": text, "logprob": _log(p), "bytes": list(data)}


def _log(p: float | None) -> float:
    return math.log(p) if p else LEAST_LOGPROB


def _text(piece: bytes) -> str:
    return piece.decode(errors="replace")


def usage(end: Finished) -> Json:
    prompt, answer = end.turn.answer + 1, end.turn.timings.predicted_n
    cached = min(end.cached, prompt)
    used = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    return {**used, "prompt_tokens_details": {"cached_tokens": cached}}


def timings(end: Finished) -> Json:
    took, cached = end.turn.timings, min(end.cached, end.turn.answer + 1)
    named: Json = {"cache_n": cached}
    parts = {
        "prompt": (end.turn.answer + 1 - cached, took.prompt_ms),
        "predicted": (took.predicted_n, took.predicted_ms),
    }
    for name, (n, ms) in parts.items():
        per_token, per_second = ms / n if n else 0.0, 1000 * n / ms if ms else 0.0
        named |= {f"{name}_n": n, f"{name}_ms": ms}
        named |= {f"{name}_per_token_ms": per_token, f"{name}_per_second": per_second}
    return named


def error_json(error: BaseException) -> tuple[int, Json]:
    """Return the status of an error, and the object that says it; what nobody expected is not told to the client."""
    if isinstance(error, RequestError):
        status, message, param, code = error.status, str(error), error.param, error.code
    elif isinstance(error, DpsError):
        status, message, param, code = 500, str(error), None, None
    else:
        status, message, param, code = 500, "the server failed: its terminal shows where", None, None
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}
