"""The server's page: what it says to type or to write into other programs' settings works with a server as it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import yaml
from maps import hand_made_map
from program import PROGRAM
from tiny import TinyModel

from dps_local.engine.model import Model
from dps_local.engine.registry import default_name
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.options import ScoringOptions

PAGE = (Path(__file__).parents[2] / "dps_local" / "server" / "README.md").read_text(encoding="utf-8")
URL, NAME = "http://127.0.0.1:8080/v1", "smollm2-135m@me"
ME = Profile("Ada", preferences=("short",), history=(HistoryItem("Aye, so be it.", "say so"),))


class Served(NamedTuple):
    """environment: of programs that ask it, or read what was scored."""

    url: str
    model: Path
    profile: Path
    environment: dict[str, str]

    def run(self, *command: object) -> str:
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, env=self.environment, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def here(self, snippet: str) -> str:
        """Return what stands on the page as it is for this server, and for answers of eight greedy tokens."""
        snippet = snippet.replace(URL, self.url).replace(NAME, f"{self.model.stem}@me")
        snippet = snippet.replace("max_tokens=60", "max_tokens=8, temperature=0")
        return snippet.replace('"max_tokens": 60', '"max_tokens": 8, "temperature": 0')


@pytest.fixture(scope="module")
def served(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for me.json, whose heads have been scored."""
    folder = tmp_path_factory.mktemp("served")
    ME.save(folder / "me.json")
    with pytest.MonkeyPatch.context() as patch, Model(tiny_model()) as model:
        patch.setenv("DPS_LOCAL_CACHE", str(folder / "cache"))
        weights = np.zeros((model.n_layer, model.n_head_max), np.float32)
        weights[1, 2] = 1
        found = replace(hand_made_map(model), scope="generated", selected=((1, 2),), weights=weights)
        replace(found, gamma=1.5, mode="contrast").save(CachedMap(Prompter.of(model, ME), ScoringOptions()).path)
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = kept | {"DPS_LOCAL_CACHE": str(folder / "cache"), "LLM_USER_PATH": str(folder / "llm")}
    command = [*PROGRAM, "serve", "-m", tiny_model(), "-p", folder / "me.json", "--port", 0, "-t", 1]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            end = time.monotonic() + 60
            while httpx.get(f"{url}/health").status_code != 200:
                assert time.monotonic() < end
                time.sleep(0.05)
            yield Served(f"{url}/v1", tiny_model(), folder / "me.json", environment)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def generated(served: Served) -> tuple[str, str]:
    """What `dps-local generate` prints with the profile's own γ, and with that of the page's requests."""
    command = [*PROGRAM, "generate", "-m", served.model, "-p", served.profile, "-n", 8, "--temp", 0, "--json"]
    asked = [[], ["--gamma", 0.5]]
    own, given = (json.loads(served.run(*command, *how, "Thank the neighbours."))["text"] for how in asked)
    assert own != given
    return own, given


def snippet(section: str, language: str) -> str:
    """Return the last block of a language in a section of the page."""
    text = re.split(rf"^## {section}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found[-1]


def leaves(settings: Any) -> Iterator[Any]:
    values = settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list) else None
    if values is None:
        yield settings
        return
    for value in values:
        yield from leaves(value)


def test_the_page_is_about_the_default_model_and_the_address_of_the_server() -> None:
    assert f"{default_name()}@me" == NAME
    assert set(re.findall(r"https?://127[^\s`'\"]*", PAGE)) == {URL, f"{URL}/chat/completions", URL.removesuffix("/v1")}
    assert set(re.findall(r"[\w.-]+@\w+", PAGE)) == {NAME}


@pytest.mark.parametrize("section", ["llm", "Continue", "aichat"])
def test_settings_are_yaml_that_names_the_address_and_the_model(section: str) -> None:
    values = list(leaves(yaml.safe_load(snippet(section, "yaml"))))
    assert {URL, NAME} <= set(values)


def test_open_webui_is_told_the_address() -> None:
    assert f"OPENAI_API_BASE_URL={URL} " in snippet("Open WebUI", "sh")


def test_llms_endpoint_gets_what_generate_prints_streamed_and_not(served: Served, generated: tuple[str, str]) -> None:
    folder = Path(served.environment["LLM_USER_PATH"])
    folder.mkdir(exist_ok=True)
    (folder / "extra-openai-models.yaml").write_text(served.here(snippet("llm", "yaml")))
    ask = [sys.executable, "-P", "-m", "llm", "-m", "served", "-o", "max_tokens", 8, "-o", "temperature", 0]
    for options in ([], ["--no-stream"]):
        assert served.run(*ask, *options, "Thank the neighbours.") == f"{generated[0]}\n"
    assert served.run(*ask, "-c", "Shorter.").strip()


def test_the_openai_clients_program_prints_what_generate_prints(served: Served, generated: tuple[str, str]) -> None:
    assert served.run(sys.executable, "-P", "-c", served.here(snippet("Python", "python"))) == f"{generated[1]}\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_gets_what_generate_prints_and_its_explanation(served: Served, generated: tuple[str, str]) -> None:
    answer = json.loads(served.run("sh", "-c", served.here(snippet("curl", "sh"))))
    assert answer["choices"][0]["message"]["content"] == generated[1]
    assert (answer["dps"]["gamma"], len(answer["dps"]["tokens"])) == ("0.5", 8)


def test_the_plugin_of_the_page_finds_the_profile(served: Served, generated: tuple[str, str]) -> None:
    commands = snippet("llm", "sh").splitlines()
    program = f"alias llm='{sys.executable} -P -m llm'\n" + "\n".join(commands[:2])
    ask = f"llm -m dps:me -o model {served.model} -o max_tokens 8 -o temperature 0 'Thank the neighbours.'"
    assert commands[2].startswith("llm -m dps:me ")
    text = served.run("sh", "-c", f"cd {served.profile.parent}\n{program}\n{ask}")
    assert text == f"{generated[0]}\n"
