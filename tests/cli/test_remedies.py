"""Errors state facts; what a person reads at the command line ends with what to do there."""

from __future__ import annotations

import re

import pytest
import typer.main
from typer.core import TyperGroup

from dps_local.cli.app import app
from dps_local.cli.remedies import REMEDIES, explained
from dps_local.errors import ContextFullError, DpsError, ModelError, NativeError, RegistryError, Remedy

PROGRAM = typer.main.get_command(app)


def commands(group: TyperGroup, name: str = "dps-local") -> dict[str, set[str]]:
    """The options of each command of a group, by its whole name."""
    options: dict[str, set[str]] = {}
    for key, command in group.commands.items():
        if isinstance(command, TyperGroup):
            options |= commands(command, f"{name} {key}")
        else:
            options[f"{name} {key}"] = {option for parameter in command.params for option in parameter.opts}
    return options


@pytest.mark.parametrize("remedy", Remedy)
def test_every_remedy_names_options_and_commands_that_exist(remedy: Remedy) -> None:
    assert isinstance(PROGRAM, TyperGroup)
    known = commands(PROGRAM)
    sentence = REMEDIES[remedy].format(model="tiny")
    assert set(re.findall(r"(?<!\S)--[a-z-]+", sentence)) <= set.union(*known.values())
    assert {name.removesuffix(" tiny") for name in re.findall(r"`(dps-local [^`]+)`", sentence)} <= known.keys()
    assert not re.search(r"--[a-z]|dps-local [a-z]", remedy.value)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NativeError("broken {model}"), "broken {model}"),
        (
            NativeError("no memory to compute 500 tokens", Remedy.LESS_GPU_MEMORY),
            "no memory to compute 500 tokens: try fewer layers on the GPU (--n-gpu-layers), or a smaller --ctx-size",
        ),
        (
            NativeError("the model gave no number for any token", Remedy.WEAKER_GAMMA),
            "the model gave no number for any token: lower --gamma where it is large; else its file may be damaged, "
            "verify it",
        ),
        (
            ContextFullError("the context of 256 tokens is full", Remedy.LARGER_CONTEXT),
            "the context of 256 tokens is full: --ctx-size makes it larger",
        ),
        (
            ModelError("{} (bert) does not write text token by token", Remedy.CHAT_MODEL),
            "{} (bert) does not write text token by token: choose a chat model, and give one that makes embeddings as "
            "--embedding-model",
        ),
        (
            RegistryError("a.gguf is damaged (it has 1 bytes, not 2)", Remedy.DOWNLOAD_AGAIN, "tiny"),
            "a.gguf is damaged (it has 1 bytes, not 2): run `dps-local models pull tiny` again",
        ),
        (
            NativeError("llama.cpp does not work on this machine ('a head' on the GPU: SIGSEGV)", Remedy.NO_GPU),
            "llama.cpp does not work on this machine ('a head' on the GPU: SIGSEGV): "
            "--n-gpu-layers 0 leaves the GPU out",
        ),
    ],
)
def test_an_error_is_its_facts_and_then_what_helps(error: DpsError, line: str) -> None:
    assert explained(error) == line
