"""`dps-local prior`: from people's profiles to a file, what it shows, and what it refuses in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from priors import assert_same
from program import Program, Terminal
from tiny import TinyModel

from dps_local.maps.prior import Prior

ABOUT = ["--writing", "mail", "--source", "Letters of nobody, 1926", "--licence", "CC0-1.0", "-c", "512", "-t", "1"]
WORDS = ("the word", "you or the other", "an inn", "the ring there", "your own hall")


def person(i: int, n_items: int = 3) -> str:
    """A profile as one line of JSON."""
    history = [{"input": f"say {k}", "output": f"Aye {k}, {WORDS[i]} it is."} for k in range(n_items)]
    return json.dumps({"name": f"P{i}", "history": history})


@pytest.fixture
def people(tmp_path: Path) -> list[Path]:
    """A profile, a folder with one, and three lines: five people, one of whom has one item only."""
    one, folder, lines = tmp_path / "one.json", tmp_path / "folder", tmp_path / "more.jsonl"
    folder.mkdir()
    one.write_text(person(0))
    (folder / "two.json").write_text(person(1))
    lines.write_text(f"{person(2)}\n\n{person(3, 1)}\n{person(4)}\n")
    return [one, folder, lines]


def test_a_prior_is_built_of_files_folders_and_lines(
    program: Program, model: Path, people: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "mail.prior.gguf"
    command = ["prior", "build", "-m", model, *people, "-o", output, *ABOUT, "--items", "2"]
    result = program(*command)
    assert result.returncode == 0, result.stderr
    prior = Prior.load(output)
    assert (prior.model, prior.writing, prior.people, prior.texts) == ("Tiny", "mail", 4, 8)
    assert (prior.source, prior.licence, prior.n_heads) == ("Letters of nobody, 1926", "CC0-1.0", (6, 6, 6))
    lines = result.stderr.splitlines()
    assert lines[0] == "measuring texts: reading the profiles"
    assert lines[-1] == f"wrote {output}"
    again = program(*command, "--json")
    said = json.loads(again.stdout)
    assert (said["people"], said["texts"], said["tokens"]) == (4, 8, prior.tokens)
    after = Prior.load(output)
    assert after.nll == pytest.approx(prior.nll)  # it is kept in F32
    assert_same(replace(after, nll=prior.nll), prior)


def test_what_a_prior_holds_and_promises_is_shown(
    program: Program, model: Path, people: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "mail.prior.gguf"
    assert program("prior", "build", "-m", model, *people, "-o", output, *ABOUT).returncode == 0
    prior = Prior.load(output)
    shown = program("prior", "show", output).stdout
    rows = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in shown.splitlines())
    fisher, step = prior.population.fisher.matrix, prior.population.step
    # the mean step, made γ long, is worth what the mean slopes gain by it, less γ²/2, and what the error adds
    for gamma, error in zip((0.2, 0.4, 0.8), prior.error.means, strict=True):
        worth = gamma * (prior.population.mu @ step) / (step @ fisher @ step) ** 0.5 - gamma**2 / 2 + error
        assert rows[f"worth at γ {gamma}"].startswith(f"{worth:+.4f} ± ")
    assert rows["tokens"] == f"{prior.tokens} of {prior.nll:.2f} nats"
    named = ("writing", "model", "people", "texts", "source", "licence")
    assert [rows[name] for name in named] == ["mail", "Tiny", "4", "12", "Letters of nobody, 1926", "CC0-1.0"]
    said = json.loads(program("prior", "show", output, "--json").stdout)
    assert rows["γ of the best lower bound"] == f"{said['gamma']:.2f}"
    assert 0 < said["gamma"] < 0.81  # 0.8, in F32
    assert 0 <= said["helps"] <= 1


def test_mistakes_are_one_line(program: Program, model: Path, people: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "a.prior.gguf"
    build = ["prior", "build", "-m", model, "-o", output, *ABOUT]
    assert "a prior needs texts of 4 people or more, and there are 2: give more files" in program.fails(
        *build, people[2], people[2]
    )
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f'{person(0)}\n{person(1)}\n{{"history": [{{"output": 3}}]}}\n')
    assert f"{bad}: line 3: history[0].output must be a string" in program.fails(*build, bad)
    assert "no profile 'nobody.jsonl'" in program.fails(*build, "nobody.jsonl")
    assert f"{model} holds no prior: make one with `dps-local prior build`" in program.fails("prior", "show", model)
    assert program(*build, *people, "--source", " ").returncode == 2
    assert not output.exists()


@pytest.mark.parametrize("kind", ["gemma4", "deepseek2"])
def test_a_model_without_a_backward_pass_says_why_it_has_no_prior(
    kind: str, program: Program, tiny_model: TinyModel, people: list[Path], tmp_path: Path
) -> None:
    said = program.fails("prior", "build", "-m", tiny_model(kind), *people, "-o", tmp_path / "a.prior.gguf", *ABOUT)
    assert "a prior is made of slopes, and those of Tiny cannot be had: " in said
    assert "no slopes of heads: " in said
    assert not (tmp_path / "a.prior.gguf").exists()


def test_a_prior_is_neither_a_model_nor_a_head_map(
    program: Program, model: Path, profile: Path, people: list[Path], tmp_path: Path
) -> None:
    prior = tmp_path / "mail.prior.gguf"
    assert program("prior", "build", "-m", model, *people, "-o", prior, *ABOUT).returncode == 0
    generate = ["generate", "-p", profile, "-n", "1", "hello"]
    assert f"{prior} is a prior, not a model: give the model that it was built for" in program.fails(
        *generate, "-m", prior
    )
    assert f"{prior} is a prior, and a head map is needed here" in program.fails(*generate, "-m", model, "--map", prior)
    head_map = tmp_path / "ada.dps.gguf"
    assert program("score", "-m", model, "-p", profile, "--examples", "2", "-c", "512", "-o", head_map).returncode == 0
    assert f"{head_map} is a head map, and a prior is needed here" in program.fails("prior", "show", head_map)


def test_ctrl_c_while_building_leaves_no_prior(terminal: Callable[..., Terminal], model: Path, tmp_path: Path) -> None:
    many, output = tmp_path / "many.jsonl", tmp_path / "out" / "a.prior.gguf"
    output.parent.mkdir()
    many.write_text("\n".join(person(i % len(WORDS), 40 + i) for i in range(40)))
    build = terminal("prior", "build", "-m", model, many, "-o", output, *ABOUT, "--items", "40")
    build.wait_for("measuring texts")
    build.interrupt()
    assert build.exit_code() == 130
    assert "Traceback" not in build.screen
    assert list(output.parent.iterdir()) == []
