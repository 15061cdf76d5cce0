"""The plugin for `llm`: its answers are those of `dps-local generate`, by its Python API and as a program."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import llm
import numpy as np
import pytest
from llm.parts import ReasoningPart, TextPart
from maps import hand_made_map
from program import PROGRAM
from tiny import TinyModel

from dps_local import llm_plugin
from dps_local.assistant import Assistant, Settings
from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.engine.model import Model
from dps_local.engine.sampler import Sampling
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.options import ScoringOptions

ADA = Profile("Ada", preferences=("short",), history=(HistoryItem("Aye, so be it.", "say so"),))
BEN = Profile("Ben", preferences=("salty",))
ASK = "Where is the harbour?"
GREEDY = Settings(n_threads=1, prefix_cache=False, sampling=Sampling(temp=0))

Ask = Callable[..., llm.Response]


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of llm's settings, with ada, who is scored, and ben, who has nothing to score."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "llm" / "dps"
    folder.mkdir(parents=True)
    for name, profile in (("ada", ADA), ("ben", BEN)):
        profile.save(folder / f"{name}.json")
    yield tmp_path / "llm"
    llm_plugin.close()


@pytest.fixture
def ask(user_folder: Path, tiny_model: TinyModel) -> Ask:
    """`ask(question, "dps:ada", …)` asks a tiny model greedily for eight tokens."""
    del user_folder

    def response(question: str = ASK, name: str = "dps:ada", asked: Any = None, **options: Any) -> llm.Response:
        given = {key: options.pop(key) for key in ("system", "messages") if key in options}
        how = {"model": str(tiny_model()), "temperature": 0, "max_tokens": 8, "threads": 1} | options
        answer: llm.Response = (asked or llm.get_model(name)).prompt(question, options=how, **given)
        return answer

    return response


@pytest.fixture
def model(user_folder: Path, tiny_model: TinyModel, load: Callable[[Path], Model]) -> Model:
    """The tiny model, for which ada's heads have been scored."""
    del user_folder
    model = load(tiny_model())
    own = CachedMap(Prompter.of(model, ADA), ScoringOptions())
    ada_map(model).save(own.path)
    return model


def ada_map(model: Model) -> Any:
    weights = np.zeros((model.n_layer, model.n_head_max), np.float32)
    weights[1, 2] = 1
    changes: dict[str, Any] = {"scope": "generated", "selected": ((1, 2),), "weights": weights}
    return replace(hand_made_map(model), **changes, gamma=1.5, mode="contrast")


def answers(model: Model, profile: Profile | None, *questions: str) -> list[str]:
    """What an assistant of its own answers, steered by ada's map where it is ada."""
    with Assistant(model, profile, ada_map(model) if profile is ADA else None, GREEDY) as assistant:
        return ["".join(token.text for token in assistant.ask(question, 8)) for question in questions]


def run(*command: object, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=environment, timeout=120, check=False, **more
    )


LLM = (sys.executable, "-P", "-m", "llm")


def test_the_program_prints_what_generate_prints(model: Model, user_folder: Path) -> None:
    options = ["-o", "model", model.path, "-o", "temperature", 0, "-o", "max_tokens", 8, "-o", "threads", 1]
    texts = []
    for name, profile in (("dps:ada", ["-p", user_folder / "dps" / "ada.json"]), ("dps", [])):
        generated = run(*PROGRAM, "generate", "-m", model.path, "--temp", 0, "-n", 8, "--json", *profile, ASK)
        texts.append(json.loads(generated.stdout)["text"])
        done = run(*LLM, "-m", name, *options, ASK)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{texts[-1]}\n", "")
    assert texts[0] != texts[1]
    with Assistant(model, settings=GREEDY) as assistant:
        assistant.session.follow([(ASK, texts[1])])  # a new process knows the texts alone
        second = "".join(token.text for token in assistant.ask("And the tide?", 8))
    done = run(*LLM, "-c", *options, "And the tide?", "--usage")
    assert done.stdout == f"{second}\n"
    assert "Token usage" in done.stderr
    logged = json.loads(run(*LLM, "logs", "--json").stdout)
    assert [(entry["model"], entry["response"]) for entry in logged] == [
        ("dps:ada", texts[0]),
        ("dps", texts[1]),
        ("dps", second),
    ]
    assert logged[0]["response_json"] == {"finish_reason": "length", "dps": {"mode": "contrast", "gamma": "1.5"}}
    assert logged[1]["response_json"] == {"finish_reason": "length", "dps": None}


def test_what_the_chat_of_the_program_refuses_is_one_line(tiny_model: TinyModel, user_folder: Path) -> None:
    del user_folder
    done = run(*LLM, "chat", "-m", "dps:ada", "-o", "model", tiny_model(), input="hello\n")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [unscored(tiny_model(), "Error: ")]


def unscored(model: Path, before: str = "") -> str:
    profile = Path(os.environ["LLM_USER_PATH"]) / "dps" / "ada.json"
    command = shlex.join(["dps-local", "score", "-m", str(model), "-p", str(profile)])
    return f"{before}this profile is not scored with this model: run `{command}`"


def test_nothing_is_scored_and_the_line_says_how(ask: Ask, tiny_model: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(llm.ModelError) as error:
        ask().text()
    assert str(error.value) == unscored(tiny_model())
    assert isinstance(error.value, click.ClickException)
    assert list((tmp_path / "cache").rglob("*.gguf")) == []


def test_a_profile_that_is_scored_meanwhile_answers(ask: Ask, request: pytest.FixtureRequest) -> None:
    with pytest.raises(llm.ModelError):
        ask().text()
    model = request.getfixturevalue("model")
    assert ask().text() == answers(model, ADA, ASK)[0]


def test_models_are_the_profiles_of_the_user_and_the_shipped_ones(user_folder: Path) -> None:
    names = [model.model_id for model in llm.get_models() if model.model_id.startswith("dps")]
    assert names == ["dps", "dps:ada", "dps:ben", "dps:idris", "dps:mara", "dps:nell", "dps:odile"]
    BEN.save(user_folder / "dps" / "mara.json")
    found = llm.get_model("dps:mara")
    assert isinstance(found, llm_plugin.SteeredModel)
    assert found.profile == str(user_folder / "dps" / "mara.json")
    assert str(found) == "dps-local: dps:mara"


def test_listing_loads_neither_engine_nor_server(user_folder: Path) -> None:
    del user_folder
    program = """
import sys, llm
assert any(model.model_id == "dps:ada" for model in llm.get_models())
print([name for name in ("dps_local.engine", "dps_local.chat", "dps_local.server", "gguf") if name in sys.modules])
"""
    done = run(sys.executable, "-P", "-c", program)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_answering_needs_no_package_of_the_server(user_folder: Path, model: Model) -> None:
    del user_folder
    program = f"""
import sys, llm
sys.modules |= dict.fromkeys(("starlette", "sse_starlette", "uvicorn"))
print(llm.get_model("dps:ben").prompt({ASK!r}, model={str(model.path)!r}, temperature=0, max_tokens=8, threads=1))
"""
    done = run(sys.executable, "-P", "-c", program)
    assert (done.returncode, done.stdout) == (0, f"{answers(model, BEN, ASK)[0]}\n"), done.stderr


def test_a_conversation_goes_on_without_being_read_again(ask: Ask, model: Model) -> None:
    conversation = llm.get_model("dps:ada").conversation()
    expected = answers(model, ADA, ASK, "And the tide?")
    first = ask(asked=conversation)
    assert first.text() == expected[0]
    ask(name="dps:ben").text()  # another person's comes between
    second = ask("And the tide?", asked=conversation)
    assert second.text() == expected[1]
    used = second.usage()
    assert used.details
    assert used.input
    read = sum(filter(None, (first.usage().input, first.usage().output)))
    assert used.input > used.details["cached_tokens"] >= read - 1 > 100


def test_usage_counts_the_tokens_of_prompt_and_answer(ask: Ask, model: Model) -> None:
    prompter = Prompter.of(model, BEN)
    usage = ask(name="dps:ben").usage()
    assert (usage.input, usage.output) == (len(prompter.template.first_tokens(prompter.system, ASK)), 8)
    assert usage.details == {"cached_tokens": 0}


def test_a_system_prompt_stands_behind_the_profile(ask: Ask, model: Model) -> None:
    system = f"{Prompter.of(model, BEN).system}\n\nSpeak of ropes."
    with Session(model, system=system, sampling=Sampling(temp=0), n_threads=1) as session:
        expected = "".join(token.text for token in session.ask(ASK, 8))
    assert ask(name="dps:ben", system="Speak of ropes.").text() == expected
    assert expected != answers(model, BEN, ASK)[0]


def test_gamma_and_mode_steer_otherwise_and_0_is_the_model_alone(ask: Ask, model: Model) -> None:
    plain, own = ask(name="dps").text(), ask().text()
    assert ask(gamma=0).text() == ask(gamma="0").text() == plain
    stronger = ask(gamma=4.0, mode="amplify")
    assert stronger.text() not in (plain, own)
    assert stronger.response_json
    assert stronger.response_json["dps"] == {"mode": "amplify", "gamma": "4"}
    del model


def test_a_profile_may_be_given(ask: Ask, model: Model, user_folder: Path) -> None:
    expected = answers(model, ADA, ASK)[0]
    path = user_folder / "dps" / "ada.json"
    assert ask(name="dps", profile=str(path)).text() == expected
    BEN.save(path)  # what is changed counts at once
    assert ask().text() == answers(model, BEN, ASK)[0] != expected


def test_one_model_is_kept_until_another_is_asked_for(
    ask: Ask, model: Model, monkeypatch: pytest.MonkeyPatch, tiny_model: TinyModel
) -> None:
    opened: list[Model] = []

    class Counted(Model):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            opened.append(self)

    monkeypatch.setattr("dps_local.engine.model.Model", Counted)
    ask().text()
    ask(name="dps:ben").text()
    assert [one.path for one in opened] == [model.path]
    other = tiny_model("qwen2")
    ask(name="dps", model=str(other)).text()
    assert [(one.path, one.handle is None) for one in opened] == [(model.path, True), (other, False)]


def test_answers_that_are_read_in_turn_are_their_own(ask: Ask, model: Model) -> None:
    expected = [answers(model, ADA, ASK)[0], answers(model, BEN, ASK)[0]]
    pairs = list(zip(ask(), ask(name="dps:ben"), strict=True))
    assert ["".join(texts) for texts in zip(*pairs, strict=True)] == expected


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Lets the first answer wait behind its first token; returns whether it was stopped, once that is known."""
    known, tokens_of = list[bool](), Session.ask

    def ask(session: Session, *arguments: Any, **options: Any) -> Iterator[Token]:
        monkeypatch.setattr(Session, "ask", tokens_of)
        tokens = tokens_of(session, *arguments, **options)
        try:
            yield next(tokens)
            known.append(session.cancel.wait(20))
            yield from tokens
        except GeneratorExit:  # stopped before it was asked for more
            known.append(True)
            raise

    monkeypatch.setattr(Session, "ask", ask)
    return known


@pytest.mark.parametrize("why", [KeyboardInterrupt, GeneratorExit])
def test_an_answer_that_nobody_reads_on_is_stopped(
    ask: Ask, model: Model, why: type[BaseException], stopped: list[bool]
) -> None:
    texts = iter(ask())
    assert next(texts)
    with pytest.raises(why):
        texts.throw(why)  # type: ignore[attr-defined]
    assert ask().text() == answers(model, ADA, ASK)[0]
    assert stopped[0]


def test_an_answer_that_another_model_breaks_off_says_so(
    ask: Ask, model: Model, stopped: list[bool], tiny_model: TinyModel
) -> None:
    texts = iter(ask())
    first = next(texts)
    assert answers(model, ADA, ASK)[0].startswith(first)
    assert ask(name="dps", model=str(tiny_model("qwen2"))).text()
    with pytest.raises(llm.ModelError, match="another model was asked for before this answer had ended"):
        list(texts)
    assert stopped[0]


@pytest.mark.slow
def test_ctrl_c_ends_the_program_in_the_middle_of_an_answer(
    user_folder: Path, real_model: Callable[[str], Path]
) -> None:
    path = real_model("smollm2-135m")
    del user_folder
    options = ["-o", "model", str(path), "-o", "threads", "2", "-s", "Count as far as you can."]
    with subprocess.Popen(
        [*LLM, "-m", "dps:ben", *options, "Count."], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        assert program.stdout.read(1)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=60)
    assert (program.returncode, said.split()) == (1, ["Aborted!"])


def history(*parts: Any) -> list[llm.Message]:
    return [llm.Message("user", [TextPart(ASK)]), llm.Message("assistant", list(parts))]


def test_what_a_model_thought_is_left_out(ask: Ask, model: Model) -> None:
    del model
    answer, thought = TextPart("East."), ReasoningPart("Hm.")
    assert ask("Sure?", messages=history(thought, answer)).text() == ask("Sure?", messages=history(answer)).text()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"gamma": "x"}, "dps.gamma cannot be used: γ is 'x': expected a number or entropy[:normalised][:cap=X]"),
        ({"mode": "loud"}, "dps.mode must be one of contrast, amplify, cad"),
        ({"temperature": -1}, "temperature must be a number from 0 to 1000"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1"),
        ({"model": "nope"}, "'nope' is neither a file nor a known model: `dps-local models list` shows the models"),
        ({"question": ""}, "the prompt is empty"),
        ({"name": "dps", "gamma": 2}, "the model alone is not steered: ask dps:NAME, or give -o profile me.json"),
        (
            {"name": "dps", "profile": "no.json"},
            "no profile 'no.json': give a JSON file or one of idris, mara, nell, odile",
        ),
        ({"name": "dps:ben", "mode": "amplify"}, "there is no measured γ for amplify: give dps.gamma"),
        (
            {"messages": [llm.user("Look:", llm.Attachment(content=b"a", type="image/png"))]},
            "messages[0].content[1].type must be text: images, sound and files are not supported",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(ask: Ask, options: dict[str, Any], line: str) -> None:
    with pytest.raises(llm.ModelError) as error:
        ask(**options).text()
    assert str(error.value) == line
