"""`dps-local serve` as a program, asked by the openai client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from program import PROGRAM
from tiny import TinyModel

if TYPE_CHECKING:
    from conftest import RealModel

ASK: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Where is the harbour?"}]
Start = Callable[..., "Running"]


class Running:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        self.process, self.url = process, process.stdout.readline().strip()
        self.clients: list[openai.OpenAI] = []

    def client(self) -> openai.OpenAI:
        with httpx.Client(base_url=self.url) as client:
            self.wait(client)
        self.clients.append(openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0))
        return self.clients[-1]

    def wait(self, client: httpx.Client) -> None:
        end = time.monotonic() + 300  # a real model reads a person's texts first
        while (status := client.get("/health").status_code) != 200:
            assert status == 503
            assert time.monotonic() < end
            time.sleep(0.05)

    def stop(self) -> tuple[int, str]:
        """Return the exit code after SIGTERM, and what stands on stderr."""
        for client in self.clients:
            client.close()
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


@pytest.fixture
def start(tiny_model: TinyModel, tmp_path: Path) -> Iterator[Start]:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = kept | {"DPS_LOCAL_CACHE": str(tmp_path / "cache")}
    running: list[subprocess.Popen[str]] = []

    def run(*options: object, model: Path | None = None, n_ctx: int = 512) -> Running:
        command = [*PROGRAM, "serve", "-m", str(model or tiny_model()), "-c", str(n_ctx), *map(str, options)]
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
        return Running(running[-1])

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "ada.json"
    path.write_text(json.dumps({"preferences": ["short"]}))
    return path


def generated(model: Path, *options: object, n_ctx: int = 512, n: int = 8, cache: Path | None = None) -> str:
    command = [*PROGRAM, "generate", "-m", model, "-c", n_ctx, "-n", n, "--temp", "0", "--json", *options]
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    kept |= {"DPS_LOCAL_CACHE": str(cache)} if cache else {}
    done = subprocess.run(
        [*map(str, command), "Where is the harbour?"], capture_output=True, text=True, env=kept, check=True
    )
    return str(json.loads(done.stdout)["text"])


def test_the_openai_client_gets_what_generate_prints(start: Start, tiny_model: TinyModel, profile: Path) -> None:
    server = start("--port", 0, "-p", profile)
    client, plain = server.client(), tiny_model().stem
    assert [model.id for model in client.models.list()] == [plain, f"{plain}@ada"]
    for model, options in ((plain, []), (f"{plain}@ada", ["-p", profile])):
        expected = generated(tiny_model(), *options)
        answer = client.chat.completions.create(model=model, messages=ASK, max_tokens=8, temperature=0)
        assert answer.choices[0].message.content == expected
        with client.chat.completions.create(
            model=model, messages=ASK, max_tokens=8, temperature=0, stream=True
        ) as stream:
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected
    as_json = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [{"harbour": 1}]}}}
    answer = client.chat.completions.create(model=plain, messages=ASK, response_format=as_json)  # type: ignore[call-overload]
    assert json.loads(answer.choices[0].message.content) == {"harbour": 1}
    vectors = client.embeddings.create(model=plain, input=["the harbour", "the tide"]).data
    assert sum(x * x for x in vectors[0].embedding) == pytest.approx(1, abs=1e-5)
    with pytest.raises(openai.NotFoundError, match="there is no such model"):
        client.chat.completions.create(model="gpt-4", messages=ASK)
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with pytest.raises(openai.BadRequestError, match="tools are not supported"):
        client.chat.completions.create(model=plain, messages=ASK, tools=[tool])  # type: ignore[list-item]
    code, said = server.stop()
    assert code == 0
    assert "harbour" not in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_real_model_says_for_the_shipped_profile_what_generate_prints(
    start: Start, real_model: RealModel, tmp_path: Path
) -> None:
    path = real_model("smollm2-135m")
    server = start("--port", 0, "-p", "nell", "-t", 1, model=path, n_ctx=2048)
    client = server.client()

    def printed(*options: object) -> str:
        return generated(path, "-t", 1, *options, n_ctx=2048, n=24, cache=tmp_path / "cache")

    def said(model: str, **dps: Any) -> Any:
        asked: dict[str, Any] = {"model": model, "messages": ASK, "max_tokens": 24, "temperature": 0}
        answer = client.chat.completions.create(**asked, extra_body={"dps": dps})
        return answer.choices[0].message.content

    plain, nell, steered = printed(), printed("-p", "nell"), printed("-p", "nell", "--gamma", 1)
    assert len({plain, nell, steered}) == 3
    for _ in range(2):
        assert said(path.stem) == said(f"{path.stem}@nell", gamma=0) == plain
        assert said(f"{path.stem}@nell") == nell
        assert said(f"{path.stem}@nell", gamma=1) == steered
    assert server.stop()[0] == 0


@pytest.mark.slow
def test_two_hundred_requests_leave_memory_flat(start: Start, profile: Path) -> None:
    server = start("--port", 0, "-p", profile)
    client = server.client()
    models, process = [model.id for model in client.models.list()], psutil.Process(server.process.pid)

    def ask(i: int) -> None:
        asked: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": f"Where is harbour {i}?"}]
        how: dict[str, Any] = {"response_format": {"type": "json_object"}} if i % 5 == 0 else {}
        with client.chat.completions.create(
            model=models[i % 2], messages=asked, max_tokens=8, stream=True, logprobs=True, top_logprobs=3, **how
        ) as stream:
            assert list(stream)

    for i in range(50):
        ask(i)
    before = process.memory_info().rss
    for i in range(200):
        ask(i)
    assert process.memory_info().rss - before < 8 << 20
    assert server.stop()[0] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_end_amid_an_answer_is_a_clean_one(start: Start, stream: bool) -> None:
    server = start("--port", 0)
    model = server.client().models.list().data[0].id
    asked = {"model": model, "messages": ASK, "temperature": 0, "stream": stream}
    host, port = server.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as clients:
        for _ in range(8):  # one is answered, the others wait
            connection = clients.enter_context(contextlib.closing(HTTPConnection(host, int(port))))
            connection.request("POST", "/v1/chat/completions", json.dumps(asked), {"content-type": "application/json"})
        code, said = server.stop()
    assert code == 0
    assert said.splitlines() == [line for line in said.splitlines() if line.startswith("a page to chat in, once: ")]


def test_a_client_that_leaves_frees_the_model(start: Start) -> None:
    server = start("--port", 0, "-c", 512, "--queue", 2)
    client = server.client()
    model = client.models.list().data[0].id
    for _ in range(5):
        with client.chat.completions.create(model=model, messages=ASK, stream=True) as stream:
            next(iter(stream))
    began = time.monotonic()
    client.chat.completions.create(model=model, messages=ASK, max_tokens=2)
    assert time.monotonic() - began < 5
    assert server.stop()[0] == 0


def test_a_link_opens_the_page_once_and_then_another_one_is_printed(start: Start) -> None:
    server = start("--port", 0)
    assert server.process.stderr
    while "?link=" not in (said := server.process.stderr.readline()):
        assert said, "there is no link"
    assert said.startswith(f"a page to chat in, once: {server.url}/?link=")
    with httpx.Client(follow_redirects=True) as browser:
        assert browser.get(said.split()[-1]).headers["content-type"].startswith("text/html")
    assert f"a page to chat in, once: {server.url}/?link=" in server.stop()[1]


def test_a_socket_file_is_for_its_owner_alone_and_goes(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "dps.sock"
    server = start("--uds", path)
    assert path.stat().st_mode & 0o777 == 0o600
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
        server.wait(client)
        assert client.get("/v1/models").json()["object"] == "list"
    code, said = server.stop()
    assert code == 0
    assert "link" not in said
    assert not path.exists()


def test_beyond_this_machine_a_key_is_needed_and_a_taken_port_is_one_line(start: Start) -> None:
    open_to_all = start("--host", "0.0.0.0").process
    assert "--api-key-file" in open_to_all.communicate(timeout=60)[1]
    assert open_to_all.returncode == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = start("--port", taken.getsockname()[1]).process
        assert "cannot listen at 127.0.0.1" in refused.communicate(timeout=60)[1].splitlines()[-1]
        assert refused.returncode == 1


def test_an_idle_model_is_unloaded_and_comes_back(start: Start) -> None:
    server = start("--port", 0, "--keep-alive", 0.2)
    client = server.client()
    model = client.models.list().data[0].id
    texts = []
    for _ in range(2):
        answer = client.chat.completions.create(model=model, messages=ASK, max_tokens=4, temperature=0)
        texts.append(answer.choices[0].message.content)
        time.sleep(0.6)
    assert texts[0] == texts[1]
    assert server.stop()[0] == 0
