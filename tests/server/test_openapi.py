"""The server's own description, and what a client is answered that keeps to it or, by a little, does not."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from served import ASK, Served

from dps_local.server.answer_request import CHAT, COMPLETION
from dps_local.server.embedding_request import EMBEDDING
from dps_local.server.openapi import FIELDS, description

HEADERS = {"host": "127.0.0.1"}


def test_every_route_is_described(served: Served) -> None:
    found = served.client.get("/openapi.json").json()
    assert found == description()
    described = {(path, *map(str.upper, methods)) for path, methods in found["paths"].items()}
    routes = {(route.path.replace(":path", ""), *route.methods - {"HEAD"}) for route in served.client.app.routes}  # type: ignore[attr-defined]
    assert {route for route in routes if route[0].startswith("/v1/")} < described <= routes
    assert FIELDS.keys() <= {*CHAT, *COMPLETION, *EMBEDDING}


PATHS = description()["paths"]
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("path", "mode"),
    [*((path, POSITIVE) for path in PATHS), *((path, NEGATIVE) for path in PATHS if "post" in PATHS[path])],
)
def test_answers_conform_whatever_is_asked(served: Served, path: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", served.client.app, headers=HEADERS)
    (operation,) = schema[path].values()
    statuses = set()

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if isinstance(body := case.body, dict):
            if isinstance(body.get("model"), str):
                body["model"] = "tiny"
            if isinstance(body.get("max_tokens"), int):
                body["max_tokens"] = min(body["max_tokens"], 4)
            if mode is POSITIVE and path.endswith("completions"):
                body["max_tokens"] = 4
                body |= {"messages": [{"role": "user", "content": ASK}]} if "chat" in path else {"prompt": ASK}
        # fields that do not go together, and the order of messages, are in no schema
        response = case.call_and_validate(headers=HEADERS, excluded_checks=[positive_data_acceptance])
        statuses.add(response.status_code)

    check()
    assert not {500, 503} & statuses
    assert mode is NEGATIVE or 200 in statuses or "{" in path
