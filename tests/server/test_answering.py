"""The server's routes over a tiny model, with Starlette's client."""

from __future__ import annotations

import base64
import json
import math
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from maps import hand_made_map
from served import ADA, ASK, BEN, HOST, SETTINGS, Served, steering_map
from starlette.testclient import TestClient
from tiny import TinyModel

from dps_local.assistant import Assistant
from dps_local.engine.embedding import Embedder
from dps_local.engine.model import Model
from dps_local.engine.sampler import Sampling
from dps_local.maps.cluster_map import ClusterMap
from dps_local.prompting.profile import Profile
from dps_local.prompting.prompt import Prompter
from dps_local.server.api_keys import ApiKeys
from dps_local.server.app import MAX_BODY, Api, make_app
from dps_local.server.guard import Access
from dps_local.server.person import Person
from dps_local.server.service import Service
from dps_local.server.worker import Worker
from dps_local.steering.mixing import Gamma


def alone(model: Model, profile: Profile | None, head: tuple[int, int] | None, question: str = ASK, **how: Any) -> str:
    """What an assistant of its own answers, as `generate` makes it."""
    settings = replace(SETTINGS, sampling=Sampling(temp=0), **how)
    heads = steering_map(model, head) if head else None
    with Assistant(model, profile, heads, settings) as assistant:
        return "".join(token.text for token in assistant.ask(question, 8))


def test_greedy_answers_are_those_of_an_assistant_alone_fifty_times_in_turn(
    served: Served, tiny_model: TinyModel
) -> None:
    with Model(tiny_model()) as model:
        ada, ben = alone(model, ADA, (1, 2)), alone(model, BEN, (0, 3))
        plain, stronger = alone(model, None, None), alone(model, ADA, (1, 2), gamma=Gamma(4.0), mode="amplify")
    assert len({ada, ben, plain, stronger}) == 4
    for _ in range(50):
        assert (served.text("tiny@ada"), served.text("tiny@ben")) == (ada, ben)
    assert served.text("tiny") == plain
    assert served.text(dps={"gamma": 0}) == plain
    assert served.text(dps={"gamma": 4, "mode": "amplify"}) == stronger


def test_a_list_that_goes_on_reads_only_what_is_new(served: Served, tiny_model: TinyModel) -> None:
    first = served.chat(messages="Who is on deck?")
    answer = first["choices"][0]["message"]
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    served.chat("tiny@ben")  # another person's comes between
    messages = [{"role": "user", "content": "Who is on deck?"}, answer, {"role": "user", "content": "And below?"}]
    second = served.chat(messages=messages)
    read = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= read - 1
    assert second["timings"]["cache_n"] + second["timings"]["prompt_n"] == second["usage"]["prompt_tokens"]
    with (
        Model(tiny_model()) as model,
        Assistant(model, ADA, steering_map(model, (1, 2)), replace(SETTINGS, sampling=Sampling(temp=0))) as assistant,
    ):
        list(assistant.ask("Who is on deck?", 8))
        expected = "".join(token.text for token in assistant.ask("And below?", 8))
    assert second["choices"][0]["message"]["content"] == expected
    assert served.text(messages=messages) == expected  # asked again, the turn is taken back


def test_a_stream_says_the_role_first_the_reason_last_and_usage_when_asked(served: Served) -> None:
    def events(**options: Any) -> list[Any]:
        body = {"model": "tiny@ada", "messages": [{"role": "user", "content": ASK}], "max_tokens": 8, "temperature": 0}
        with served.client.stream("POST", "/v1/chat/completions", json={**body, "stream": True, **options}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
        assert lines.pop() == "[DONE]"
        return list(map(json.loads, lines))

    chunks = events()
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == served.text()
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [*[None] * (len(chunks) - 1), "length"]
    assert not any("usage" in c for c in chunks)
    *_, last = events(stream_options={"include_usage": True})
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 8)


def test_sampling_stops_logprobs_and_shifts(served: Served) -> None:
    draws = [served.text(temperature=1.5, top_k=0, seed=seed, max_tokens=24) for seed in (7, 7, 8)]
    assert draws[0] == draws[1] != draws[2]
    whole = served.text()
    stopped = served.chat(stop=whole[4:6])["choices"][0]
    assert stopped["message"]["content"] == whole[: whole.index(whole[4:6])]
    assert stopped["finish_reason"] == "stop"
    shown = served.chat(logprobs=True)["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in shown) == whole
    assert all(token["logprob"] <= 0 for token in shown)
    explained = served.chat(dps={"explain": True})["dps"]
    assert (explained["mode"], explained["gamma"]) == ("contrast", "1.5")
    assert "".join(token["text"] for token in explained["tokens"]) == whole
    assert any(token["shift"] for token in explained["tokens"])
    assert len(served.chat(max_completion_tokens=3, logprobs=True)["choices"][0]["logprobs"]["content"]) == 3


@pytest.mark.parametrize("model", ["tiny", "tiny@ada"])
def test_the_most_probable_tokens_come_with_each(served: Served, model: str) -> None:
    shown = served.chat(model, logprobs=True, top_logprobs=20)["choices"][0]["logprobs"]["content"]
    assert shown == served.chat(model, logprobs=True, top_logprobs=20)["choices"][0]["logprobs"]["content"]
    for token in shown:
        top = [one["logprob"] for one in token["top_logprobs"]]
        assert top == sorted(top, reverse=True)
        assert top[0] == token["logprob"]  # greedy
        assert sum(map(math.exp, top)) <= 1 + 1e-5
        assert all(bytes(one["bytes"]).decode(errors="replace") == one["token"] for one in token["top_logprobs"])
    assert any(token["token"] == token["top_logprobs"][0]["token"] for token in shown)
    # the plausibility mask leaves fewer
    assert (min(len(token["top_logprobs"]) for token in shown) < 20) == (model == "tiny@ada")
    few = served.chat(model, logprobs=True, top_logprobs=1)["choices"][0]["logprobs"]["content"]
    assert [token["top_logprobs"] for token in few] == [token["top_logprobs"][:1] for token in shown]
    asked = {"model": model, "prompt": "the harbour", "max_tokens": 3, "temperature": 0, "logprobs": 5}
    found = served.client.post("/v1/completions", json=asked).json()["choices"][0]["logprobs"]
    assert [max(top.values()) for top in found["top_logprobs"]] == found["token_logprobs"]
    assert max(map(len, found["top_logprobs"])) <= 5


def test_a_text_is_completed_as_it_is(served: Served, tiny_model: TinyModel) -> None:
    body = {"model": "tiny", "prompt": "the harbour", "max_tokens": 6, "temperature": 0}
    found = served.client.post("/v1/completions", json=body).json()
    with Model(tiny_model()) as model:
        assert found["usage"]["prompt_tokens"] == len(model.prompt_tokens("the harbour"))
    assert found["object"] == "text_completion"
    other = served.client.post("/v1/completions", json=body | {"model": "tiny@ada"}).json()
    assert found["choices"][0]["text"] != other["choices"][0]["text"]
    assert found["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"n": 2}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": 0}, "response_format"),
        ({"stream_options": False}, "stream_options"),
        ({"logit_bias": []}, "logit_bias"),
        ({"tools": {}}, "tools"),
        ({"dps": []}, "dps"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}},
            "response_format.json_schema.schema",
        ),
        ({"json_schema": {"type": "string", "pattern": "a"}}, "json_schema"),
        ({"json_schema": {"$ref": "#"}}, "response_format"),
        ({"grammar": "root ::= root"}, "grammar"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"mirostat": 2}, "mirostat"),
        ({"dps": {"gama": 1}}, "dps.gama"),
        ({"dps": {"gamma": 1e9}}, "dps.gamma"),
        ({"dps": {"mode": "louder"}}, "dps.mode"),
        ({"dps": {"mode": "amplify"}}, "dps.mode"),
        ({"model": "tiny", "dps": {"gamma": 1}}, "dps"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 1_000_000}]}, "messages"),
    ],
)
def test_what_is_not_done_is_refused_by_name(served: Served, options: dict[str, Any], param: str) -> None:
    error = served.chat(**{"status": 400, **options})["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


@pytest.mark.parametrize("dps", [{"mode": "contrast"}, {"mode": "amplify", "gamma": 2}, {"gamma": 0}])
def test_an_answer_is_json_of_the_schema(served: Served, dps: dict[str, Any]) -> None:
    schema = {"properties": {"n": {"type": "integer"}, "on": {"type": "boolean"}}, "required": ["n", "on"]}
    named = {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}}
    asked: list[dict[str, Any]] = [
        {"response_format": named},
        {"response_format": {"type": "json_object", "schema": schema}},
        {"json_schema": schema},
    ]
    for how in asked:
        found = served.chat(**how, dps=dps, temperature=2, seed=1, max_tokens=100)["choices"][0]
        said = json.loads(found["message"]["content"])
        assert {name: type(value) for name, value in said.items()} == {"n": int, "on": bool}
        assert found["finish_reason"] == "stop"
    whole = served.chat(response_format={"type": "json_object"}, dps=dps, max_tokens=100)["choices"][0]
    assert whole["message"]["content"].startswith("{")
    assert whole["finish_reason"] == "length" or isinstance(json.loads(whole["message"]["content"]), dict)


def test_parts_developer_and_messages_of_one_role_in_a_row_are_one_text(served: Served) -> None:
    parts = [{"type": "text", "text": "Where is"}, {"type": "text", "text": "it?"}]
    said = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    expected = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is\nit?"}]
    assert served.text(messages=said) == served.text(messages=expected) != served.text(messages="Where is\nit?")
    in_a_row = [{"role": "user", "content": "Where"}, {"role": "user", "content": "is it?"}]
    assert served.text(messages=in_a_row) == served.text(messages="Where\n\nis it?")


def test_an_unscored_profile_is_a_conflict_with_its_command(served: Served) -> None:
    assert "run `dps-local score -p cat.json`" in served.chat("tiny@cat", status=409)["error"]["message"]
    assert served.text("tiny@cat", dps={"gamma": 0}) == served.text("tiny")


def embedded(served: Served, status: int = 200, **options: Any) -> Any:
    response = served.client.post("/v1/embeddings", json={"model": "tiny", "input": "the harbour"} | options)
    assert response.status_code == status, response.text
    return response.json()


def test_texts_are_vectors_of_the_plain_model(served: Served, tiny_model: TinyModel) -> None:
    texts = ["the harbour", "word " * 60, "the harbour"]
    found = embedded(served, input=texts)
    vectors = np.array([one["embedding"] for one in found["data"]])
    with Model(tiny_model()) as model:
        n_tokens = sum(len(model.prompt_tokens(text)) for text in texts)
        with closing(Embedder(model, n_threads=1)) as embed:
            np.testing.assert_allclose(vectors, [embed(text) for text in texts], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert found["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    data = base64.b64decode(embedded(served, input=texts[1], encoding_format="base64")["data"][0]["embedding"])
    np.testing.assert_allclose(np.frombuffer(data, "<f4"), vectors[1], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": "word " * 600}, "input"),
        ({"dimensions": 3}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"model": "tiny@ada"}, "model"),
    ],
)
def test_vectors_that_are_not_made_are_refused_by_name(served: Served, options: dict[str, Any], param: str) -> None:
    assert embedded(served, 400, **options)["error"]["param"] == param


def test_models_are_listed_with_what_steers_them(served: Served) -> None:
    listed = {model["id"]: model for model in served.client.get("/v1/models").json()["data"]}
    assert list(listed) == ["tiny", "tiny@ada", "tiny@ben", "tiny@cat"]
    assert (listed["tiny@ada"]["dps"]["mode"], listed["tiny@ada"]["dps"]["gamma"]) == ("contrast", 1.5)
    assert served.client.get("/v1/models/tiny@ada").json() == listed["tiny@ada"]
    assert served.client.get("/props").json()["default_generation_settings"] == {"n_ctx": 512}
    assert served.client.get("/health").json() == {"status": "ok"}
    assert served.client.get("/nothing").json()["error"]["message"] == "Not Found"


def test_until_the_model_is_loaded_its_routes_say_when_to_come_again() -> None:
    client = TestClient(make_app(Api(Worker(Service), "tiny", []), Access()), base_url=HOST)  # type: ignore[arg-type]
    for path in ("/health", "/v1/models", "/v1/models/tiny", "/props"):
        response = client.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert response.json()["error"]["code"] == "loading"


def one_cluster(model: Model, head: tuple[int, int]) -> ClusterMap:
    grid = np.zeros((1, model.n_layer, model.n_head_max), np.float32)
    weights = grid.copy()
    weights[0][head] = 1
    grids: dict[str, Any] = dict.fromkeys(("pcs", "pcs_stderr", "gain", "gain_stderr"), grid)
    return ClusterMap(
        **{name: getattr(hand_made_map(model), name) for name in ("model", "architecture", "fingerprint", "ranking")},
        **grids,
        weights=weights,
        null_control=0.0,
        center=np.zeros(model.n_embd, np.float32),
        centroids=np.ones((1, model.n_embd), np.float32),
        embedder=model.fingerprint,
        embedder_tokens=64,
        scope="generated",
        seed=0,
        users=(3,),
        examples=(9,),
        evaluations=12,
        gamma=2.0,
    )


def test_a_person_of_a_cluster_is_steered_as_alone(served: Served, tiny_model: TinyModel) -> None:
    with Model(tiny_model()) as model:
        heads = one_cluster(model, (1, 2))
        prompter = Prompter.of(model, ADA, n_ctx=512)
        service = Service(model, {"ada": Person(prompter, None, heads)}, SETTINGS, {})
        worker = Worker(lambda: service)
        worker.start()
        assert worker.ready.wait(60)
        client = TestClient(make_app(Api(worker, "tiny", ["ada"]), Access()), base_url=HOST)
        body = {"model": "tiny@ada", "messages": [{"role": "user", "content": ASK}], "max_tokens": 8, "temperature": 0}
        found = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        refused = client.post("/v1/chat/completions", json=body | {"dps": {"mode": "amplify"}})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dps.mode")
        assert client.get("/v1/models/tiny@ada").json()["dps"]["gamma"] == 2
        worker.close()
    with (
        Model(tiny_model()) as model,
        Assistant(model, ADA, heads, replace(SETTINGS, sampling=Sampling(temp=0))) as assistant,
    ):
        assert found == "".join(token.text for token in assistant.ask(ASK, 8)) != served.text("tiny")


def test_a_profile_that_a_key_may_not_use_does_not_exist_for_it(served: Served) -> None:
    client = served.guarded(Access(keys=ApiKeys({"k1": frozenset(["ada"]), "k2": None})))
    assert client.get("/health").status_code == 200
    for route in client.app.routes:  # type: ignore[attr-defined]
        path, post = route.path.replace("{model:path}", "tiny@ben"), "POST" in route.methods
        body: dict[str, Any] = {"model": "tiny@ben", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        if path == "/v1/embeddings":
            body = {"model": "tiny@ben", "input": "x"}
        if path == "/v1/completions":
            body = {"model": "tiny@ben", "prompt": "x", "max_tokens": 1}
        sent: dict[str, Any] = {"json": body} if post else {}
        ask: Any = client.post if post else client.get
        if path == "/health":
            continue
        refused: list[dict[str, str]] = [{}, {"authorization": "Bearer k3"}, {"authorization": "Bearer "}]
        for wrong in refused:
            assert ask(path, headers=wrong, **sent).status_code == 401, path
        mine = ask(path, headers={"authorization": "Bearer k1"}, **sent)
        all_of_them = ask(path, headers={"authorization": "Bearer k2"}, **sent)
        assert all_of_them.status_code == (400 if path == "/v1/embeddings" else 200), path
        assert "ben" not in mine.text, path
        if post or "ben" in path:
            unknown: dict[str, Any] = {"json": body | {"model": "tiny@nobody"}} if post else {}
            nobody = ask(path.replace("ben", "nobody"), headers={"authorization": "Bearer k1"}, **unknown)
            assert (mine.status_code, mine.text) == (404, nobody.text), path


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_pages_are_refused(served: Served, headers: dict[str, str]) -> None:
    for path in ("/health", "/v1/models"):
        response = served.client.get(path, headers=headers)
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers


def test_bodies_that_are_no_json_or_too_large_are_refused(served: Served) -> None:
    def status(data: bytes, kind: str = "application/json") -> int:
        sent = served.client.post("/v1/chat/completions", content=data, headers={"content-type": kind})
        assert sent.json()["error"]["type"] == "invalid_request_error"
        return sent.status_code

    assert status(b"{}", "text/plain") == 415
    assert status(b"{") == status(b"[]") == status(b'{"model": NaN}') == status(b"[" * 99999) == 400
    assert status(b" " * (MAX_BODY + 1)) == 413
