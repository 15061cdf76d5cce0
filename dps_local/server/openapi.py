"""The server's own description, in OpenAPI 3.1: what it takes, which is what OpenAI's API has of it, and `dps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import dps_local
from dps_local.server.answer_request import CHAT, COMPLETION, MAX_STOPS, SAMPLING
from dps_local.server.embedding_request import EMBEDDING, MAX_TEXTS
from dps_local.steering.mixing import LARGEST
from dps_local.steering.steering import SteeringMode

Json = dict[str, Any]


def description() -> Json:
    paths = {
        "/health": _get("Whether the model is loaded; 503 until then", _object("status")),
        "/v1/models": _get("The model alone, and with each profile", _object("object", "data")),
        "/v1/models/{model}": _get("One of them, with what steers it", _object("id", "object"), "model"),
        "/v1/models/{model}/heads": _get(
            "The head map of a person, drawn as HTML", {"type": "string"}, "model", kind="text/html"
        ),
        "/props": _get("What the model is used with", _object("default_generation_settings")),
        "/openapi.json": _get("This description", _object("openapi", "paths")),
        "/v1/chat/completions": _post("An answer to messages", _body(CHAT), _answer()),
        "/v1/completions": _post("A text completed as it is", _body(COMPLETION), _answer()),
        "/v1/embeddings": _post("Vectors of texts, of the plain model", _body(EMBEDDING), _object("data", "usage")),
    }
    info = {"title": "dps-local", "version": dps_local.__version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _get(summary: str, content: Json, *parameters: str, kind: str = "application/json") -> Json:
    named = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in parameters]
    return {"get": {"summary": summary, "parameters": named, "responses": _responses({kind: content})}}


def _post(summary: str, body: Json, content: Json) -> Json:
    sent = {"required": True, "content": {"application/json": {"schema": body}}}
    answers = {"application/json": content, "text/event-stream": {}}  # a schema has no place for a stream's events
    return {"post": {"summary": summary, "requestBody": sent, "responses": _responses(answers)}}


def _responses(content: Json) -> Json:
    said = {kind: {"schema": schema} for kind, schema in content.items()}
    error = {"type": "object", "required": ["error"], "properties": {"error": _object("message", "type")}}
    failed = {"description": "What is wrong, and what to do", "content": {"application/json": {"schema": error}}}
    return {"200": {"description": "Done", "content": said}, "default": failed}


def _object(*required: str) -> Json:
    return {"type": "object", "required": list(required)}


def _answer() -> Json:
    choice = _object("index", "finish_reason")
    choices = {"type": "array", "minItems": 1, "maxItems": 1, "items": choice}
    return _object("id", "object", "created", "model", "choices", "usage", "timings") | {
        "properties": {"choices": choices}
    }


def _body(names: Sequence[str]) -> Json:
    """Return the schema of a request; what is null counts as absent. What no schema can say is in the errors."""
    required = [name for name in ("model", "messages", "prompt", "input") if name in names]
    properties = {name: FIELDS.get(name, {}) for name in names}
    if "messages" not in names:
        properties |= {"logprobs": _or_null(_integer(0, 5))} if "logprobs" in names else {}
    optional = {name: _or_null(schema) for name, schema in properties.items() if name not in required}
    return {
        "type": "object",
        "required": required,
        "properties": properties | optional,
        "additionalProperties": False,
    }


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]} if schema else {}


def _integer(low: float, high: float | None = None) -> Json:
    return {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})


TEXT, FLAG, LIST = {"type": "string"}, {"type": "boolean"}, {"type": "array"}
WORDS = {"type": "string", "minLength": 1}
PARTS = {"type": "array", "items": _object("type", "text") | {"properties": {"type": {"const": "text"}, "text": TEXT}}}
MESSAGE = _object("role", "content") | {
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {"anyOf": [TEXT, PARTS]},
    }
}
FIELDS: Json = {
    "model": TEXT,
    "messages": {"type": "array", "minItems": 1, "items": MESSAGE},
    "prompt": {"anyOf": [WORDS, {"type": "array", "minItems": 1, "maxItems": 1, "items": WORDS}]},
    "input": {"anyOf": [WORDS, {"type": "array", "minItems": 1, "maxItems": MAX_TEXTS, "items": WORDS}]},
    "encoding_format": {"enum": ["float", "base64"]},
    "stream": FLAG,
    "stream_options": {"type": "object", "properties": {"include_usage": _or_null(FLAG)}},
    "max_tokens": _integer(1),
    "max_completion_tokens": _integer(1),
    "stop": {"anyOf": [WORDS, {"type": "array", "maxItems": MAX_STOPS, "items": WORDS}]},
    "seed": _integer(-(2**63), 2**64),
    "top_k": _integer(0, 2**31 - 1),
    **{name: {"type": "number", "minimum": low, "maximum": high} for name, (_, low, high) in SAMPLING.items()},
    "logprobs": FLAG,
    "top_logprobs": _integer(0, 20),
    "n": {"const": 1},
    "best_of": {"const": 1},
    "echo": {"const": False},
    "response_format": _object("type")
    | {
        "description": "Of JSON schemas: type, properties, required, additionalProperties, items, minItems, maxItems, "
        "minLength, maxLength, enum, const, anyOf, and $ref within the schema; properties come in their order",
        "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}},
    },
    "suffix": {"const": ""},
    "logit_bias": {"type": "object", "maxProperties": 0},
    **{name: {"type": "array", "maxItems": 0} for name in ("tools", "functions")},
    **{name: {"enum": ["none", "auto"]} for name in ("tool_choice", "function_call")},
    "modalities": {"const": ["text"]},
    "json_schema": {"type": ["object", "boolean"]},
    "dps": {
        "type": "object",
        "properties": {
            "gamma": _or_null({"anyOf": [{"type": "number", "minimum": -LARGEST, "maximum": LARGEST}, TEXT]}),
            "mode": _or_null({"enum": list(get_args(SteeringMode))}),
            "explain": _or_null(FLAG),
        },
        "additionalProperties": False,
    },
}
