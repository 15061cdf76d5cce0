"""dps_local from Python: what it exports, and the README's own program."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from opened import shared
from tiny import TinyModel

import dps_local as dps
from dps_local import errors

README = Path(__file__).parents[1] / "README.md"
ME = {"name": "Ada", "history": [{"input": f"Question {i}?", "output": f"Answer {i}, at once."} for i in range(4)]}


def python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A folder with what the README's program reads."""
    (tmp_path / "model.gguf").symlink_to(tiny_model())
    (tmp_path / "me.json").write_text(json.dumps(ME))
    return tmp_path


def test_the_readmes_program_runs_as_it_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(folder / "cache"))
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    after = """
heads.save("me.dps.gguf")
assert dps.HeadMap.load("me.dps.gguf").selected == heads.selected
assert model.handle is None
assert assistant.session.full.context.handle is None
"""
    assert python(program + after, folder)


def test_an_assistant_answers_as_a_session_does_with_what_its_map_says(
    tiny_model: TinyModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(folder / "cache"))
    model, me = shared(tiny_model()), dps.Profile.load(folder / "me.json")
    heads = dps.score(model, me)
    heads.save(folder / "me.dps.gguf")
    settings = dps.Settings(gamma=dps.Gamma(0.7), mode="amplify", sampling=dps.Sampling(temp=0), n_threads=1)
    with dps.Assistant(model, me, folder / "me.dps.gguf", settings) as assistant:
        answer = [token.id for token in assistant.ask("Thank the neighbours.", 9)]
        assert assistant.prompter
        system, earlier, n_ctx = assistant.prompter.system, assistant.prompter.earlier(), assistant.prompter.n_ctx
        assert earlier
    steering = heads.steering(model, "amplify", dps.Gamma(0.7))
    assert isinstance(steering, dps.Steering)
    assert (steering.scales != 1).any()
    greedy = dps.Sampling(temp=0)
    with dps.Session(model, system=system, earlier=earlier, steering=steering, sampling=greedy, n_ctx=n_ctx) as session:
        assert [token.id for token in session.ask("Thank the neighbours.", 9)] == answer
        plain = [token.id for token in session.regenerate(9, steering=None)]
        assert [token.id for token in session.regenerate(9)] == answer
    assert plain != answer


def test_answers_without_a_profile_or_a_map_are_plain(tiny_model: TinyModel) -> None:
    model = shared(tiny_model())
    settings = dps.Settings(sampling=dps.Sampling(temp=0), n_threads=1)
    with (
        dps.Assistant(model, settings=settings) as assistant,
        dps.Session(model, sampling=dps.Sampling(temp=0), n_threads=1) as session,
    ):
        assert assistant.steering is None
        answers = [[t.id for t in chat.ask("Where to?", 9)] for chat in (assistant, session)]
    assert answers[0] == answers[1]


def test_everything_that_is_promised_is_there() -> None:
    for name in dps.__all__:
        assert getattr(dps, name) is not None
    assert set(dir(dps)) >= set(dps.__all__)
    with pytest.raises(AttributeError, match=r"^module 'dps_local' has no attribute 'Modell'$"):
        getattr(dps, "Modell")  # noqa: B009
    kinds = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert kinds <= set(dps.__all__)


def test_importing_loads_no_library(tmp_path: Path) -> None:
    code = "import sys, dps_local; print(sorted({'numpy', 'gguf', 'jinja2', 'llama_cpp', 'rich'} & sys.modules.keys()))"
    assert python(code, tmp_path) == "[]\n"


def test_paths_may_be_texts(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = str(tmp_path / "me.json")
    Path(path).write_text(json.dumps(ME))
    assert dps.Profile.load(path) == dps.Profile.load(Path(path))
    with dps.Model(str(tiny_model())) as one, dps.Model(tiny_model()) as other:
        assert one.identity == other.identity
        assert np.array_equal(one.n_heads, other.n_heads)
