"""What tests of whole command lines share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import PROFILE, QUICK, ChatTerminal, Inside, Program, Terminal
from screen import Screen
from tiny import TinyModel

from dps_local.maps.head_map import HeadMap


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    drop = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    folders = {f"DPS_LOCAL_{name.upper()}": tmp_path / name for name in ("cache", "data", "state")}
    folders["DPS_LOCAL_CONFIG"] = tmp_path / "config" / "config.toml"
    return kept | {name: str(path) for name, path in folders.items()} | {"TERM": "xterm", "PYTHONWARNINGS": "error"}


@pytest.fixture
def model(tiny_model: TinyModel) -> Path:
    return tiny_model("llama")


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "ada.json"
    path.write_text(json.dumps(PROFILE, indent=1))
    return path


@pytest.fixture
def program(environment: dict[str, str]) -> Program:
    return Program(environment)


@pytest.fixture
def inside(environment: dict[str, str]) -> Inside:
    return Inside({key: value for key, value in environment.items() if key.startswith("DPS_LOCAL")})


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str | Path) -> Terminal:
        kind = ChatTerminal if arguments[0] == "chat" else Terminal
        opened.append(kind(list(arguments), environment))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def screen(environment: dict[str, str]) -> Iterator[Callable[..., Screen]]:
    """`screen("chat", "-m", model, columns=40, TERM="dumb")`: names in capitals go to the environment."""
    opened: list[Screen] = []

    def start(*arguments: str | Path, **options: Any) -> Screen:
        changed = {name: options.pop(name) for name in [*options] if name.isupper()}
        opened.append(Screen(*arguments, environment=environment | changed, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def head_map(program: Program, model: Path, profile: Path, tmp_path: Path) -> Path:
    """The map that two history items give: too little to choose heads by, or to steer."""
    path = tmp_path / "ada.dps.gguf"
    assert program("score", "-m", model, "-p", profile, *QUICK, "-o", path).returncode == 0
    return path


@pytest.fixture
def steering_map(head_map: Path, tmp_path: Path) -> Path:
    """The same, as if it had chosen heads and a strength."""
    path = tmp_path / "steering.dps.gguf"
    found = HeadMap.load(head_map)
    weights = np.zeros_like(found.weights)
    weights[1, 2] = 1
    replace(found, selected=((1, 2), (0, 3)), weights=weights, gamma=0.5, calibration=None).save(path)
    return path
