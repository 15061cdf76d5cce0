"""`dps-local models`."""

from __future__ import annotations

import json

from program import Program


def test_a_model_that_is_not_here_is_not_downloaded_unasked(program: Program) -> None:
    message = program.fails("generate", "-m", "smollm2-135m", "hi")
    assert "run `dps-local models pull smollm2-135m`" in message
    assert "offline" in program.fails("models", "pull", "smollm2-135m", "--offline")


def test_the_models_can_be_listed(program: Program) -> None:
    said = json.loads(program("models", "list", "--json").stdout)["models"]
    assert {"smollm2-135m", "gemma3-270m"} <= {entry["name"] for entry in said}
    assert [entry["name"] for entry in said if entry["default"]] == ["smollm2-135m"]
    assert "smollm2-135m" in program("models", "list").stdout
