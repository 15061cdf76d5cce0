"""`AnswerRequest`: what a client asks for, read from OpenAI's JSON. What is not done is refused, never ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from dps_local.engine.sampler import RANDOM_SEED, Sampling
from dps_local.errors import SettingsError
from dps_local.server.fields import Fields
from dps_local.server.json_grammar import json_grammar
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import SteeringMode

MAX_STOPS = 16
SAMPLING = {
    "temperature": ("temp", 0, 1000),
    "top_p": ("top_p", 0, 1),
    "min_p": ("min_p", 0, 1),
    "repeat_penalty": ("repeat_penalty", 0.01, 100),
    "frequency_penalty": ("frequency_penalty", -2, 2),
    "presence_penalty": ("presence_penalty", -2, 2),
}
# that say nothing about the answer
HARMLESS = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "cache_prompt")
COMMON = (
    *("model", "stream", "stream_options", "max_tokens", "stop", "seed", "top_k", "logprobs", "dps"),
    *("n", "logit_bias", "response_format", "json_schema", *SAMPLING, *HARMLESS),
)
CHAT = (*COMMON, "messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice")
CHAT = (*CHAT, "functions", "function_call", "parallel_tool_calls", "modalities")
COMPLETION = (*COMMON, "prompt", "echo", "best_of", "suffix")


@dataclass(frozen=True)
class SteeringRequest:
    """The `dps` object. gamma, mode: None takes the profile's own. explain: bring the tokens' shifts back."""

    gamma: Gamma | None = None
    mode: SteeringMode | None = None
    explain: bool = False


@dataclass(frozen=True)
class AnswerRequest:
    """pairs: earlier questions and answers; question: that is to be answered, or the text that is to be completed.

    n_predict: -1 until the model ends. usage: the stream ends with what was used. grammar: GBNF, '' for none.
    n_top: most probable tokens that come with each.
    """

    model: str
    question: str
    system: str = ""
    pairs: Sequence[tuple[str, str]] = ()
    chat: bool = True
    stream: bool = False
    usage: bool = False
    n_predict: int = -1
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    n_top: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    grammar: str = ""
    steering: SteeringRequest = field(default_factory=SteeringRequest)


def chat_request(data: Any) -> AnswerRequest:
    """Read the body of /v1/chat/completions."""
    fields = Fields(data)
    fields.known(CHAT)
    for name in ("tools", "functions"):
        if fields.raw(name) not in (None, []):
            raise fields.error(name, "are not supported by this server", "unsupported_parameter")
    for name in ("tool_choice", "function_call"):
        if name in fields and fields.raw(name) not in ("none", "auto"):
            raise fields.error(name, "is not supported by this server", "unsupported_parameter")
    if fields.raw("modalities") not in (None, ["text"]):
        raise fields.error("modalities", "other than text are not supported", "unsupported_parameter")
    if (n_top := fields.integer("top_logprobs", 0, 0, 20)) and not fields.flag("logprobs"):
        raise fields.error("top_logprobs", "goes with logprobs alone")
    system, pairs, question = _conversation(fields)
    tokens = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    return _request(fields, question, tokens, system=system, pairs=pairs, logprobs=fields.flag("logprobs"), n_top=n_top)


def completion_request(data: Any) -> AnswerRequest:
    """Read the body of /v1/completions."""
    fields = Fields(data)
    fields.known(COMPLETION)
    if fields.integer("best_of", 1, 1) != 1:
        raise fields.error("best_of", "must be 1: one answer is drawn", "unsupported_value")
    if fields.flag("echo"):
        raise fields.error("echo", "is not supported", "unsupported_value")
    if fields.raw("suffix") not in (None, ""):
        raise fields.error("suffix", "is not supported", "unsupported_parameter")
    logprobs, n_top = "logprobs" in fields, fields.integer("logprobs", 0, 0, 5)
    if isinstance(prompts := fields.raw("prompt"), list):
        if len(prompts) != 1 or not isinstance(prompts[0], str):
            raise fields.error("prompt", "must be one text: lists and tokens are not supported", "unsupported_value")
        fields = Fields(data | {"prompt": prompts[0]})
    if not (prompt := fields.text("prompt")):
        raise fields.error("prompt", "is empty")
    return _request(fields, prompt, "max_tokens", chat=False, logprobs=logprobs, n_top=n_top)


def _request(fields: Fields, question: str, max_tokens: str, **others: Any) -> AnswerRequest:
    if fields.integer("n", 1, 1) != 1:
        raise fields.error("n", "must be 1: one answer is drawn", "unsupported_value")
    if fields.raw("logit_bias") not in (None, {}):
        raise fields.error("logit_bias", "is not supported", "unsupported_parameter")
    stream = fields.flag("stream")
    options = fields.part("stream_options")
    options.known(("include_usage", "include_obfuscation"))
    if "stream_options" in fields and not stream:
        raise fields.error("stream_options", "goes with stream alone")
    return AnswerRequest(
        fields.text("model"),
        question,
        stream=stream,
        usage=options.flag("include_usage"),
        n_predict=fields.integer(max_tokens, -1, 1) if max_tokens in fields else -1,
        stop=_stops(fields),
        sampling=_sampling(fields),
        grammar=_grammar(fields),
        steering=_steering(fields),
        **others,
    )


def _grammar(fields: Fields) -> str:
    """Return the grammar of `response_format`, as OpenAI and llama.cpp's server have it, or of `json_schema`."""
    if "json_schema" in fields:
        return _schema_grammar(fields, "json_schema")
    form = fields.part("response_format", type="text")
    if (kind := form.text("type")) == "json_object":
        form.known(("type", "schema"))
        return _schema_grammar(form, "schema") if "schema" in form else json_grammar({"type": "object"})
    if kind == "json_schema":
        form.known(("type", "json_schema"))
        named = Fields(form.raw("json_schema"), "response_format.json_schema")
        named.known(("name", "description", "strict", "schema"))
        return _schema_grammar(named, "schema")
    if kind != "text":
        raise form.error("type", "must be text, json_object or json_schema")
    return ""


def _schema_grammar(fields: Fields, name: str) -> str:
    try:
        return json_grammar(fields.raw(name))
    except SettingsError as exc:
        raise fields.error(name, str(exc), "invalid_json_schema") from exc


def _conversation(fields: Fields) -> tuple[str, list[tuple[str, str]], str]:
    """Return the system message, earlier questions with their answers, and the question.

    Messages of one role in a row are one message, as templates that want roles in turn are given them.
    """
    said: list[tuple[str, str]] = []
    for i, data in enumerate(fields.list("messages")):
        role, text = _message(Fields(data, f"messages[{i}]"))
        if said and said[-1][0] == role:
            text = f"{said.pop()[1]}\n\n{text}"
        said.append((role, text))
    system = said.pop(0)[1] if said[0][0] == "system" else ""
    roles, texts = [role for role, _ in said], [text for _, text in said]
    if roles != [("user", "assistant")[i % 2] for i in range(len(roles))] or len(roles) % 2 == 0:
        raise fields.error("messages", "must begin with a user's behind those of role system, and end with a user's")
    return system, list(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1]


def _message(fields: Fields) -> tuple[str, str]:
    fields.known(("role", "content", "name", "refusal", "tool_calls", "reasoning_content", "annotations", "audio"))
    for name in ("tool_calls", "audio", "refusal", "annotations"):
        if fields.raw(name):
            raise fields.error(name, "is not supported by this server", "unsupported_value")
    role = {"developer": "system"}.get(name := fields.text("role"), name)
    if role not in ("system", "user", "assistant"):
        raise fields.error("role", "must be system, developer, user or assistant", "unsupported_value")
    if role == "assistant" and "content" not in fields:
        return role, ""
    if not isinstance(content := fields.raw("content"), list):
        return role, fields.text("content")
    parts = [Fields(part, f"{fields.name}.content[{i}]") for i, part in enumerate(content)]
    for part in parts:
        if part.text("type") != "text":
            raise part.error("type", "must be text: images, sound and files are not supported", "unsupported_value")
    return role, "\n".join(part.text("text") for part in parts)


def _stops(fields: Fields) -> tuple[str, ...]:
    stops = fields.raw("stop")
    stops = [stops] if isinstance(stops, str) else [] if stops is None else stops
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise fields.error("stop", f"must be a text, or a list of at most {MAX_STOPS} texts, none of them empty")
    return tuple(stops)


def _sampling(fields: Fields) -> Sampling:
    values: dict[str, Any] = {
        name: fields.number(key, getattr(Sampling, name), low, high) for key, (name, low, high) in SAMPLING.items()
    }
    if 0 < values["temp"] < 0.001:  # logits divided by less overflow
        raise fields.error("temperature", "must be 0 (greedy), or from 0.001 to 1000")
    values["top_k"] = fields.integer("top_k", Sampling.top_k, 0, 2**31 - 1)
    return Sampling(**values, seed=fields.integer("seed", -1, -(2**63), 2**64) & RANDOM_SEED)


def _steering(fields: Fields) -> SteeringRequest:
    asked = fields.part("dps")
    asked.known(("gamma", "mode", "explain"))
    mode = asked.raw("mode")
    if mode is not None and mode not in get_args(SteeringMode):
        raise asked.error("mode", f"must be one of {', '.join(get_args(SteeringMode))}")
    return SteeringRequest(_gamma(asked), mode, asked.flag("explain"))


def _gamma(asked: Fields) -> Gamma | None:
    gamma = asked.raw("gamma")
    if gamma is None:
        return None
    if isinstance(gamma, bool) or not isinstance(gamma, (int, float, str)):
        raise asked.error("gamma", "must be a number, or entropy[:normalised][:cap=X]")
    try:
        return Gamma.parse(gamma) if isinstance(gamma, str) else Gamma(float(gamma))
    except (SettingsError, OverflowError) as exc:
        raise asked.error("gamma", f"cannot be used: {exc}") from exc
